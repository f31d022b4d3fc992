/**
 * What an object does, one operation after the other: the sequential side of linearizability.
 *
 * A model is made for one history of one key, since what was read already tells much of the order
 * that writes took effect in; without that the search would try orders that no read allows.
 */
import type { Operation } from '../history.js';

/** Equal states must be equal values: the search remembers where it has been. */
export type State = string | number;

export interface Model {
  readonly initial: State;
  /**
   * The state behind `operation`; undefined: in `state` it cannot have been answered so. Of an `info`
   * operation no answer is known, so every answer is possible.
   */
  step(state: State, operation: Operation): State | undefined;
  /** Whether a state can change the answer of anything but by a value that somebody saw (`settle`). */
  readonly unseenMatters: boolean;
  /** The values that an `ok` operation proves to have been there. */
  sees(operation: Operation): readonly unknown[];
  /** Operations with equal ones change every state in the same way. */
  effect(operation: Operation): string;
}

/** `operations`: of one key, without those that surely had no effect. */
export type ModelOf = (operations: readonly Operation[]) => Model;

const text = (value: unknown): string => JSON.stringify(value ?? null);

/** Whether the answer is known, so that it has to be right. */
const answered = ({ status }: Operation): boolean => status === 'ok';

/** Stands for all values that no answer depends on. */
const unseen = '#';

/** A value that is written, deleted (null), compared and swapped; null at first. */
export const register: ModelOf = (operations) => {
  const told = new Set(['null']);
  for (const { op, output, expected } of operations) {
    if (op === 'read') told.add(text(output));
    if (op === 'cas') told.add(text(expected));
  }
  const written = (operation: Operation): string => {
    const value = text(operation.value);
    return told.has(value) ? value : unseen;
  };
  return {
    initial: 'null',
    // "Was not what I expected" is true of many states, also of one that nobody reads.
    unseenMatters: operations.some((one) => one.op === 'cas' && one.output === false),
    sees: (operation) => {
      if (operation.op === 'read') return [operation.output];
      return operation.op === 'cas' && operation.output !== false ? [operation.expected] : [];
    },
    effect: (operation) => `${operation.op} ${text(operation.expected)} ${written(operation)}`,
    step: (state, operation) => {
      switch (operation.op) {
        case 'read':
          return !answered(operation) || state === text(operation.output) ? state : undefined;
        case 'write':
          return written(operation);
        case 'cas': {
          const swaps = state === text(operation.expected);
          if (answered(operation) && swaps !== (operation.output !== false)) return undefined;
          return swaps ? written(operation) : state;
        }
        default:
          throw new RangeError(`a register knows no ${operation.op}`);
      }
    },
  };
};

/** A list that only grows. The state is its length: the longest read says what stands where. */
export const appendList: ModelOf = (operations) => {
  const reads = operations.filter(({ op, status }) => op === 'read' && status === 'ok');
  let order: readonly string[] = [];
  const listed = new Map<Operation, readonly string[]>();
  for (const read of reads) {
    const list = elementsOf(read).map(text);
    listed.set(read, list);
    if (list.length > order.length) order = list;
  }
  const seen = new Set(order);
  const contradicts = new Set(
    reads.filter((read) => listed.get(read)?.some((element, n) => element !== order[n])),
  );
  return {
    initial: 0,
    unseenMatters: false,
    sees: (operation) => (operation.op === 'read' ? elementsOf(operation) : []),
    effect: (operation) => `${operation.op} ${text(operation.value)}`,
    step: (state, operation) => {
      const length = Number(state);
      if (operation.op === 'append') {
        const element = text(operation.value);
        // What no read has shown can only stand behind everything that one has.
        const fits = length < order.length ? order[length] === element : !seen.has(element);
        return fits ? length + 1 : undefined;
      }
      if (operation.op !== 'read') throw new RangeError(`a list knows no ${operation.op}`);
      if (!answered(operation)) return state;
      const fits = listed.get(operation)?.length === length && !contradicts.has(operation);
      return fits ? state : undefined;
    },
  };
};

/** A sum: `add` may answer with the sum behind it. 0 at first, also when the key is not there. */
export const counter: ModelOf = () => ({
  initial: 0,
  unseenMatters: true,
  sees: () => [],
  effect: (operation) => `${operation.op} ${text(operation.value)}`,
  step: (state, operation) => {
    const sum = Number(state);
    if (operation.op === 'read')
      return !answered(operation) || sum === numberOf(operation.output) ? sum : undefined;
    if (operation.op !== 'add') throw new RangeError(`a counter knows no ${operation.op}`);
    const next = sum + numberOf(operation.value);
    const told = answered(operation) ? operation.output : undefined;
    return told === undefined || numberOf(told) === next ? next : undefined;
  },
});

/** What a read of a list or a set has shown; null, of a key that is not there, is none. */
export function elementsOf({ output, key }: Operation): readonly unknown[] {
  if (output === null || output === undefined) return [];
  if (!Array.isArray(output)) throw new RangeError(`key ${key}: a list was expected`);
  return output;
}

/** Throws a RangeError for what is not a number; null, of a key that is not there, is 0. */
export function numberOf(value: unknown): number {
  if (value === null) return 0;
  if (typeof value !== 'number') throw new RangeError(`${JSON.stringify(value)} is no number`);
  return value;
}
