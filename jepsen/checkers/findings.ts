/** What all checkers share: a verdict with its time and a few findings, and one key at a time. */
import type { Operation, Verdict } from '../history.js';

/** A broken cluster breaks everything: the first findings say enough. */
const findingsMax = 5;

export class Findings {
  readonly lines: string[] = [];
  private count = 0;
  private undecidedCount = 0;

  get hasFound(): boolean {
    return this.count > 0;
  }

  /** Something that cannot be: its lines belong together. */
  found(lines: readonly string[]): void {
    this.count++;
    if (this.count <= findingsMax) this.lines.push(...lines);
  }

  undecided(line: string): void {
    this.undecidedCount++;
    if (this.undecidedCount <= findingsMax) this.lines.push(`undecided: ${line}`);
  }

  get valid(): true | false | 'unknown' {
    if (this.count > 0) return false;
    return this.undecidedCount > 0 ? 'unknown' : true;
  }

  get details(): readonly string[] {
    const more = this.count - findingsMax;
    return more > 0 ? [...this.lines, `and ${more} more`] : this.lines;
  }
}

export function verdict(
  checker: string,
  operations: readonly Operation[],
  check: (findings: Findings) => void,
): Verdict {
  const began = performance.now();
  const findings = new Findings();
  check(findings);
  const ms = Math.round(performance.now() - began);
  return {
    checker,
    valid: findings.valid,
    checked: operations.length,
    ms,
    details: findings.details,
  };
}

export function byKey(operations: readonly Operation[]): ReadonlyMap<string, readonly Operation[]> {
  const keys = new Map<string, Operation[]>();
  for (const operation of operations) {
    const known = keys.get(operation.key);
    if (known === undefined) keys.set(operation.key, [operation]);
    else known.push(operation);
  }
  return keys;
}

const textMax = 72;

/** `client 3 cas 4 -> 5: true`, for findings. */
export function describeOperation(operation: Operation): string {
  const { client, op, value, expected, output, status } = operation;
  const words = [`client ${client}`, op];
  if (expected !== undefined) words.push(short(expected), '->');
  if (value !== undefined) words.push(short(value));
  const answer = status === 'ok' ? (output === undefined ? 'ok' : short(output)) : status;
  return `${words.join(' ')}: ${answer}`;
}

/** The end of a long text: lists grow there. */
function short(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length <= textMax ? text : `..${text.slice(-textMax)}`;
}
