// Details of spans that were read, up to a number of bytes: those that were used longest ago go first.

const LIMIT = 64 * 2 ** 20;

export class DetailCache {
  constructor() {
    /** @type {Map<string, { status: SpanStatus, detail: SpanDetail, bytes: number }>} in the order of their last use */
    this.kept = new Map();
    this.bytes = 0;
  }

  /**
   * Return a span's detail as it was read when the span had this status.
   * @param {string} id
   * @param {SpanStatus} status
   */
  get(id, status) {
    const found = this.kept.get(id);
    if (found?.status !== status) return undefined;
    this.kept.delete(id);
    this.kept.set(id, found);
    return found.detail;
  }

  /**
   * Keep a detail. One that is larger than the limit is not kept.
   * @param {string} id
   * @param {SpanStatus} status
   * @param {SpanDetail} detail
   */
  put(id, status, detail) {
    this._remove(id);
    const bytes = bytesOf(detail);
    this.kept.set(id, { status, detail, bytes });
    this.bytes += bytes;
    for (const oldest of this.kept.keys()) {
      if (this.bytes <= LIMIT) break;
      this._remove(oldest);
    }
  }

  /** @param {string} id */
  _remove(id) {
    this.bytes -= this.kept.get(id)?.bytes ?? 0;
    this.kept.delete(id);
  }
}

/**
 * Estimate the memory of a detail: two bytes for each character of its long texts, and some for the rest.
 * @param {SpanDetail} detail
 */
function bytesOf({ payload, result_payload, messages }) {
  let characters = payload.length + (result_payload?.length ?? 0);
  for (const { text, calls } of messages) {
    characters += text.length;
    for (const call of calls) characters += call.arguments.length;
  }
  return 2 * characters + 2000;
}
