// The JSON that the viewer's modules read, for the type check (`python -m tasks js`); no browser loads this file.
// tests/viewer/test_types.py compares these members with those that viewer/data.py, conversation.py and listing.py write.
// Times ending in `_at` are ISO 8601 in UTC; `_ms` are milliseconds. A payload is JSON text.

type SpanStatus = "pending" | "active" | "complete" | "failed" | "cancelled";
type RunStatus = SpanStatus | "terminated";
type View = "tree" | "conversation" | "stats";

interface SpanCounts {
  pending: number;
  active: number;
  complete: number;
  failed: number;
  cancelled: number;
  total: number;
  finished: number;
}

/** The facts about a run that its page's head shows (data.run_facts). */
interface Run {
  id: string;
  agent: string;
  version: string;
  external_identifier: string | null;
  title: string | null;
  status: RunStatus;
  /** As the list of runs says it. */
  verdict: { mark: string; text: string };
  purpose: string;
  started_at: string | null;
  finished_at: string | null;
  inserted_at: string;
  duration_ms: number | null;
  termination_reason: string | null;
  closed: string | null;
  left_open: boolean;
  metadata: string | null;
  result: string | null;
  error: string | null;
  quality: string | null;
  program: string | null;
  git_commit: string | null;
  task: string | null;
  case: CaseOfTrial | null;
  session: string | null;
  user: string | null;
  tags: string[];
  /** Those that count. */
  scores: Score[];
  budget: Budget | null;
  spans: SpanCounts | null;
}

/** The case of a trial: its trials, and the runs of the same case that they were compared with (data.run_facts). */
interface CaseOfTrial {
  case: string;
  number: number;
  /** The agent with its version. */
  evaluation: string;
  /** The sentence about the trial, up to the name of the evaluation. */
  text: string;
  trials: CaseRun[];
  base: string | null;
  base_runs: CaseRun[];
  /** The address of the evaluation's runs, and of its cases beside those of the base. */
  runs: string;
  versions: string | null;
}

/** A run of a case, with the mark and the text of its verdict. */
interface CaseRun {
  run: string;
  number: number;
  mark: string;
  text: string;
}

/** The budget of a run: what it has used and who allowed more, and whether it waits for somebody to allow more. */
interface Budget {
  text: string;
  limits: string[];
  waits: boolean;
}

/** A score, a mark or a note of a run or a span (data.score_facts): what it says, who judged, and when. */
interface Score {
  target: string;
  name: string;
  source: string;
  identifier: string | null;
  text: string;
  by: string;
  at: string;
}

/** Why a run failed, in the words of `agentspan why RUN` (data.why). */
interface Why {
  /** The rule over a score that the run missed; null where its status decides. */
  rule: string | null;
  sentence: string;
  /** The error of the run, if no step raised it. */
  error: string | null;
  /** The id and the number of the step that made the run fail; null where no step failed. */
  step: string | null;
  number: number | null;
  /** Labels and texts about that step. */
  facts: [string, string][];
  signature: string;
  /** How often other runs have the same failure, in words; and how many they are. */
  elsewhere: string | null;
  others: number;
  /** The passing run to compare with, what it is, and where the two part. */
  nearest: string | null;
  nearest_text: string;
  parting: string | null;
}

/** The time of each span in which none of its children ran, of those that have children and have ended (data.own_times). */
interface OwnTimes {
  own_ms: Record<string, number>;
}

/** What a person says about a run, or a span of it: a name with a value, a mark, a note; or what to remove. */
interface Judgement {
  span_id: string | null;
  name?: string;
  value?: string;
  mark?: string;
  note?: string;
  identifier?: string | null;
  remove?: boolean;
}

interface SpanType {
  name: string;
  kind: string;
  title: string;
}

/** Columns as they are sent; null where no span has a value. `type`, `label`, `status` and `failure` are positions in lists. */
interface SentColumns {
  id: string[];
  parent: (number | string | null)[] | null;
  type: number[];
  label: (number | null)[] | null;
  status: number[];
  summary: string[];
  start_ms: number[];
  duration_ms: (number | null)[];
  input_tokens: (number | null)[] | null;
  output_tokens: (number | null)[] | null;
  cost_usd: (number | null)[] | null;
  failure: (number | null)[] | null;
}

/** Failures with one signature (schemas/signatures.py), and their error without its values. */
interface Failure {
  signature: string;
  error: string;
}

/** Spans of a run (data.columns); a long run comes in several chunks. */
interface SpanChunk {
  origin: string;
  columns: SentColumns;
  types: SpanType[];
  labels: string[];
  statuses: SpanStatus[];
  failures: Failure[];
  errors: Record<string, string>;
  aggregates: number[];
  left_open: number[];
  abandoned: number[];
  next: string | null;
  latest: string | null;
  cursor: string | null;
  stalled_s: number;
}

/** All of one span (data.detail); in the place of the bytes of images, audio and others stands what blobs.js finds. */
interface SpanDetail {
  id: string;
  schema_name: string;
  summary: string | null;
  started_at: string | null;
  finished_at: string | null;
  inserted_at: string;
  closed: string | null;
  program: string | null;
  payload: string;
  result_payload: string | null;
  messages: SpanMessage[];
  /** Columns that have no words of their own, by their name. */
  facts: Record<string, string>;
  /** Those that count. */
  scores: Score[];
  violations: Violation[];
}

/** What a model call read, compared with the call before it (context_diff.since_previous). */
interface ContextChange {
  before: string | null;
  elements: number;
  tokens: number;
  is_counted: boolean;
  is_recorded: boolean;
  compactions: number;
  sources: ContextSource[];
  changes: ContextElement[];
  more: number;
}

/** Tokens of one source: in both calls, and what came in, left and was cut in between (context_diff.changes_by_source). */
interface ContextSource {
  source: string;
  title: string;
  a: number;
  b: number;
  came_in: number;
  left: number;
  cut: number;
}

interface ContextElement {
  mark: "+" | "-" | "~" | "=";
  name: string;
  tokens: number;
  text: string;
  span: string | null;
}

interface Violation {
  side: string;
  path: string;
  keyword: string;
  message: string;
}

/** What is not the text of a message (messages.Part), as JSON text, of whose `length` characters `text` has the first. */
interface Part {
  name: string;
  text: string;
  length: number;
}

/** A tool call that a model asks for. */
interface Call {
  id: string | null;
  name: string;
  arguments: string;
  others: Part[];
}

/** A chat message (messages.Message). `others` is what is not text. */
interface Message {
  role: string;
  name: string | null;
  text: string;
  calls: Call[];
  call_id: string | null;
  others: Part[];
}

/** A message of a span: `side` tells whether an LLM received or returned it. */
interface SpanMessage extends Message {
  side?: "in" | "out";
}

/** A call, and the number of the turn of the tool's step that is equal, or that differs (turns.TurnCall). */
interface TurnCall extends Call {
  same: number | null;
  differs: number | null;
}

/** A turn of a run's conversation (turns.Turn). Numbers of turns count from 1. */
interface Turn {
  span: string;
  thread: string;
  agent: string | null;
  side: "in" | "out" | "";
  role: string;
  text: string;
  length: number;
  name: string | null;
  arguments: string | null;
  calls: TurnCall[];
  asked_by: string | null;
  others: Part[];
  again: [number, number][];
  differs: number[];
  error: string | null;
  at: string;
  status: SpanStatus;
  shown: ShownCall | null;
}

/** The call of a tool in a session: its line, and the lines of an edit or a to-do list with their signs (calls.Shown). */
interface ShownCall {
  line: string;
  lines: [string, string][];
  more: number;
  edited: [string, number, number][];
}

/** A prompt of a session, with all until the next one; `turn` is the number of its first turn, from 0 (costs.Chapter). */
interface Chapter {
  span_id: string;
  name: string;
  step: number;
  at: string;
  duration_ms: number;
  tokens: number | null;
  cost_usd: number | null;
  turn: number;
}

/** A file that a session edited, and the step of the first edit (calls.File). */
interface EditedFile {
  path: string;
  added: number;
  removed: number;
  edits: number;
  span_id: string;
}

/** An agent's part of a conversation (conversation.Section). */
interface Section {
  id: string;
  parent: string | null;
  name: string | null;
  first: number;
  turns: number;
  tokens: number | null;
  cost_usd: number | null;
  duration_ms: number;
}

/** Turns from number `offset` on, counted from 0; `place` is that of the turn that was asked for. */
interface TurnPage {
  turns: Turn[];
  total: number;
  sections: Record<string, Section>;
  chapters: Chapter[];
  files: EditedFile[];
  offset: number;
  place: number | null;
}

/** Statistics of a span type, or of one label of it (analysis.stats.Stat). */
interface Stat {
  kind: string;
  /** Why the row is shown only on request: "" where it is shown (data.statistics). */
  left: "" | "once" | "more";
  schema_name: string;
  label: string | null;
  count: number;
  failed: number;
  cancelled: number;
  open: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  max_ms: number | null;
  total_ms: number;
  input_tokens: number | null;
  output_tokens: number | null;
  cost_usd: number | null;
  is_aggregate: boolean;
  histogram: number[];
}

interface Statistics {
  bounds_ms: number[];
  stats: Stat[];
  rests: StatRest[];
  prompts: PromptUse[];
}

/** What a prompt of a run used, with all until the next one; without a name: what came before the first (costs.CostRow). */
interface PromptUse {
  name: string | null;
  span: string | null;
  runs: number;
  calls: number;
  input_tokens: number | null;
  output_tokens: number | null;
  cost_usd: number | null;
  unpriced_calls: number;
  unpriced_tokens: number;
}

/** How many rows are shown only on request: labels of a type, or types (analysis.runs.Rest). */
interface StatRest {
  schema_name: string | null;
  number: number;
  is_once: boolean;
}

interface Matches {
  ids: string[];
  total: number;
}

/** A row of the list of runs: its cells as text, by column (listing). */
interface RunRow {
  id: string;
  href: string;
  mark: string;
  cells: Record<string, string>;
  titles: Record<string, string>;
}

/** What happened lately (viewer.answer). */
interface Answer {
  runs: number;
  head: string;
  parts: AnswerPart[];
  sums: string;
  causes: AnswerCause[] | null;
  rest: string;
  bars: AnswerBar[];
  since: string;
  most: string;
  until: string;
}

interface AnswerPart {
  mark: string;
  text: string;
  href: string;
}

interface AnswerCause {
  runs: string;
  text: string;
  only: string;
  href: string;
}

/** The runs that began in a range of times: of each part its top and its height. */
interface AnswerBar {
  label: string;
  href: string;
  passed: [number, number];
  other: [number, number];
  failed: [number, number];
}

interface RunListPage {
  runs: RunRow[];
  total: number;
  count: string;
  preparing: boolean;
}

/** A step with the text that the list of runs is asked for; every second part of its snippet is a match (found_steps). */
interface FoundStep {
  run: string;
  span: string;
  agent: string;
  status: SpanStatus;
  summary: string;
  started: string;
  parts: string[];
  repeats: number;
}

interface FoundSteps {
  steps: FoundStep[];
  count: string;
}

/** Reads a run's data: from the server, or from the exported file that the page is. */
interface RunSource {
  isLocal: boolean;
  spans(query: { since?: string; cursor?: string; after?: string }): Promise<SpanChunk & { run?: Run }>;
  facts(): Promise<Run>;
  detail(id: string): Promise<SpanDetail>;
  context(id: string): Promise<ContextChange>;
  blob(id: string, hash: string): string | null;
  conversation(from: { offset?: number; span?: string }): Promise<TurnPage>;
  stats(): Promise<Statistics>;
  search(text: string): Promise<Matches>;
  why(): Promise<Why | null>;
  ownTimes(): Promise<OwnTimes>;
  terminate(reason: string): Promise<{ run: Run }>;
  allow(limit: string, amount: string): Promise<{ run: Run }>;
  judge(judgement: Judgement): Promise<{ run: Run }>;
}

// What the modules keep in memory and pass to each other.

/** The spans of a run, column by column (spans.js). A span is its index in each of these lists. */
type SpanColumns = {
  parent: (string | null)[];
  schema_name: string[];
  kind: string[];
  title: string[];
  label: (string | null)[];
  status: SpanStatus[];
  summary: string[];
  start_ms: number[];
  duration_ms: (number | null)[];
  input_tokens: (number | null)[];
  output_tokens: (number | null)[];
  cost_usd: (number | null)[];
  error: (string | null)[];
  signature: (string | null)[];
  common_error: (string | null)[];
  left_open: boolean[];
  abandoned: boolean[];
  aggregate: boolean[];
};
type SpanValues = { [Name in keyof SpanColumns]: SpanColumns[Name][number] };

/** Attributes of a new element: functions become listeners, true an empty attribute; null and false are left out. */
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: any) => void)>;
/** A part of an element (parts.js); it is made anew when one of its data is another value. */
interface DetailPart {
  name: string;
  data: unknown[];
  make: () => Node | null;
}
/** What a button saves as a file: the text, and the end of the name (longtext.js). */
interface Saved {
  text: string;
  suffix: string;
}
type Child = Node | string | number | null | undefined;

interface JSON {
  parse(text: string, reviver: (key: string, value: any, context?: { source?: string }) => any): any;
  rawJSON?(text: string): unknown;
}
