/**
 * What clients did and what they were told: one operation a line, as JSON, in the order of their
 * ends. Every time is from one clock, that of the process that runs all clients.
 *
 * `ok`: it took effect, once, between call and return. `fail`: it surely had no effect, and told
 * nothing. `info`: nobody knows (a timeout, a broken connection): it may take effect at any time
 * after its call, or never.
 */
import { createReadStream, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const operationNames = ['read', 'write', 'cas', 'append', 'add', 'transfer', 'scan'] as const;
const statuses = ['ok', 'fail', 'info'] as const;

export type OperationName = (typeof operationNames)[number];
export type OperationStatus = (typeof statuses)[number];

/**
 * | op       | value                | output when ok                                             |
 * |----------|----------------------|------------------------------------------------------------|
 * | read     |                      | what the key held; null: nothing. Lists and sets: an array |
 * | write    | the new value; null: delete |                                                     |
 * | cas      | the new value, `expected` the old one | true: swapped; false: another one was there |
 * | append   | an element, unique   |                                                            |
 * | add      | a number to add (counter), an element (set) | the sum after it, if the workload asks |
 * | transfer | {from, to, amount}   | true: done; false: refused                                 |
 * | scan     |                      | [key, value] pairs, or {account: balance}                  |
 */
export interface Operation {
  readonly client: number;
  readonly op: OperationName;
  readonly key: string;
  readonly value?: unknown;
  readonly expected?: unknown;
  readonly output?: unknown;
  /** Nanoseconds since the run began. */
  readonly callNs: number;
  /** Nanoseconds since the run began; of `info` the time when the client gave up. */
  readonly returnNs: number;
  readonly status: OperationStatus;
  readonly error?: string;
}

/** A fault from its injection to its healing. */
export interface FaultSpan {
  readonly nemesis: string;
  readonly what: string;
  readonly target: string;
  readonly fromNs: number;
  readonly toNs: number;
  readonly hadEffect: boolean;
}

export interface Verdict {
  readonly checker: string;
  /** `unknown`: a limit of time or memory ended the search. It is not a pass. */
  readonly valid: true | false | 'unknown';
  /** Operations that were looked at. */
  readonly checked: number;
  readonly ms: number;
  /** A small counter-example, or why the search ended; none for a pass. */
  readonly details: readonly string[];
}

export function historyLine(operation: Operation): string {
  return `${JSON.stringify(operation)}\n`;
}

export function writeHistory(file: string, operations: Iterable<Operation>): void {
  writeFileSync(file, [...operations].map(historyLine).join(''));
}

/** Throws a RangeError with the line's number when a line is not an operation. */
export async function readHistory(file: string): Promise<readonly Operation[]> {
  const operations: Operation[] = [];
  for await (const line of createInterface({ input: createReadStream(file) })) {
    if (line !== '') operations.push(parseOperation(line, operations.length + 1));
  }
  return operations;
}

function parseOperation(line: string, number: number): Operation {
  const parsed: unknown = parseJson(line, number);
  if (!isOperation(parsed)) throw new RangeError(`line ${number} is not an operation: ${line}`);
  return parsed;
}

function parseJson(line: string, number: number): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new RangeError(`line ${number} is not JSON: ${line.slice(0, 100)}`, { cause: error });
  }
}

function isOperation(value: unknown): value is Operation {
  if (typeof value !== 'object' || value === null) return false;
  const { client, op, key, callNs, returnNs, status } = value as Partial<Operation>;
  return (
    Number.isSafeInteger(client) &&
    operationNames.some((name) => name === op) &&
    typeof key === 'string' &&
    typeof callNs === 'number' &&
    typeof returnNs === 'number' &&
    callNs <= returnNs &&
    statuses.some((name) => name === status)
  );
}
