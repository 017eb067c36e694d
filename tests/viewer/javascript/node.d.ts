// What the tests use of Node.js, for the type check. The package with all of its types would need a node_modules.

declare module "node:test" {
  export default function test(name: string, run: () => void | Promise<void>): void;
}

declare module "node:assert/strict" {
  const assert: {
    (value: unknown, message?: string): asserts value;
    equal(actual: unknown, expected: unknown, message?: string): void;
    deepEqual(actual: unknown, expected: unknown, message?: string): void;
    match(actual: string, pattern: RegExp): void;
    rejects(promise: Promise<unknown>, error: RegExp): Promise<void>;
  };
  export default assert;
}
