/**
 * Pins: a key, or all keys with a prefix, that are a slot of their own, from 16384 up. A prefix has a
 * whole `{tag}`, so that all of its keys are of one hash slot; pins do not overlap. In the order of the
 * keys of its hash slot a pin is one piece, a segment. Pure.
 */
import { slotCount, slotOf, type Slot } from './slot.js';

export interface PinRule {
  /** The pin's own; never used again for another one. */
  readonly slot: Slot;
  readonly key: Uint8Array;
  /** All keys that begin with `key`; otherwise this one alone. */
  readonly isPrefix: boolean;
}

/** A piece of a hash slot's keys, in their order: where they are, and the first key behind them. */
export interface Segment {
  readonly slot: Slot;
  /** Undefined: to the end of the hash slot. */
  readonly end: Uint8Array | undefined;
}

const noRules: readonly PinRule[] = [];

export function isPin(slot: Slot): boolean {
  return slot >= slotCount;
}

export function covers({ key, isPrefix }: PinRule, userKey: Uint8Array): boolean {
  const length = key.byteLength;
  if (isPrefix ? userKey.byteLength < length : userKey.byteLength !== length) return false;
  return Buffer.compare(userKey.subarray(0, length), key) === 0;
}

/** Some key would belong to both. */
export function overlap(a: PinRule, b: PinRule): boolean {
  return covers(a, b.key) || covers(b, a.key);
}

/** The first key behind those of a pin. */
export function endOfPin({ key, isPrefix }: PinRule): Uint8Array {
  return isPrefix ? behindPrefix(key) : behindKey(key);
}

/** The smallest key greater than `key`. */
export function behindKey(key: Uint8Array): Uint8Array {
  return Buffer.concat([key, Buffer.of(0)]);
}

/** The first key behind all that begin with `prefix`; empty: there is none. */
export function behindPrefix(prefix: Uint8Array): Uint8Array {
  let length = prefix.byteLength;
  while (length > 0 && prefix[length - 1] === 0xff) length--;
  const end = Buffer.from(prefix.subarray(0, length));
  if (length > 0) end[length - 1] = (end[length - 1] ?? 0) + 1;
  return end;
}

/** The segment of a hash slot that holds the key `from`, or would; empty: the first one. */
export function segmentAt(home: Slot, rules: readonly PinRule[], from: Uint8Array): Segment {
  let end: Uint8Array | undefined;
  for (const rule of rules) {
    if (Buffer.compare(from, rule.key) < 0) {
      if (end === undefined || Buffer.compare(rule.key, end) < 0) end = rule.key;
    } else if (Buffer.compare(from, endOfPin(rule)) < 0) {
      return { slot: rule.slot, end: endOfPin(rule) };
    }
  }
  return { slot: home, end };
}

/** All pins that somebody knows of, by hash slot. */
export class Pins {
  private readonly byHome = new Map<Slot, readonly PinRule[]>();

  constructor(rules: Iterable<PinRule>) {
    for (const rule of rules) {
      const home = slotOf(rule.key);
      this.byHome.set(home, [...this.of(home), rule]);
    }
  }

  of(home: Slot): readonly PinRule[] {
    return this.byHome.get(home) ?? noRules;
  }

  slotOf(key: Uint8Array): Slot {
    const home = slotOf(key);
    return this.of(home).find((rule) => covers(rule, key))?.slot ?? home;
  }
}
