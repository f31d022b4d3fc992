/** Ranges of slots, whoever owns them. A list of them ascends, and its ranges do not touch. Pure. */
import { pinSlotMax, slotCount, type Slot } from './slot.js';

export interface SlotSpan {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
}

/** What is wrong with ranges that somebody wrote down, in any order; undefined: nothing. */
export function problemOfSpans(spans: readonly SlotSpan[]): string | undefined {
  if (spans.length === 0) return 'no slots are named: name at least one, 0 to 16383';
  for (const { first, last } of spans) {
    const bad = [first, last].find(
      (slot) => !Number.isInteger(slot) || slot < 0 || slot > pinSlotMax,
    );
    if (bad !== undefined)
      return `slot must be an integer from 0 to ${slotCount - 1}, or a pin above it, got ${bad}`;
    if (first > last) return `slots ${first}-${last}: a range begins with the smaller slot`;
  }
  const sorted = sortedSpans(spans);
  const twice = sorted.find(({ first }, at) => first <= (sorted[at - 1]?.last ?? -1));
  return twice === undefined ? undefined : `slot ${twice.first} is named twice: name each once`;
}

/** Any ranges as a list. */
export function joinSpans(spans: readonly SlotSpan[]): readonly SlotSpan[] {
  const joined: SlotSpan[] = [];
  for (const { first, last } of sortedSpans(spans)) {
    const before = joined.at(-1);
    if (before === undefined || first > before.last + 1) joined.push({ first, last });
    else joined[joined.length - 1] = { ...before, last: Math.max(before.last, last) };
  }
  return joined;
}

function sortedSpans(spans: readonly SlotSpan[]): readonly SlotSpan[] {
  return spans.toSorted((a, b) => a.first - b.first);
}

export function countSlots(spans: readonly SlotSpan[]): number {
  return spans.reduce((total, { first, last }) => total + last - first + 1, 0);
}

/** As people write them: '0-4095, 8192'. */
export function textOfSpans(spans: readonly SlotSpan[]): string {
  return spans.map(({ first, last }) => (first === last ? first : `${first}-${last}`)).join(', ');
}

/** The parts of a list that lie in ranges, which ascend and may touch, each as a part of one range. */
export function partsOf<R extends SlotSpan>(
  ranges: readonly R[],
  spans: readonly SlotSpan[],
): readonly R[] {
  const parts: R[] = [];
  let at = 0;
  for (const { first, last } of spans) {
    while (at < ranges.length && (ranges[at]?.last ?? 0) < first) at++;
    for (let each = at; each < ranges.length; each++) {
      const range = ranges[each];
      if (range === undefined || range.first > last) break;
      parts.push({
        ...range,
        first: Math.max(first, range.first),
        last: Math.min(last, range.last),
      });
    }
  }
  return parts;
}

/** The first `count` slots of a list, and the others. */
export function takeSlots(
  spans: readonly SlotSpan[],
  count: number,
): { readonly taken: readonly SlotSpan[]; readonly left: readonly SlotSpan[] } {
  const taken: SlotSpan[] = [];
  const left: SlotSpan[] = [];
  let wanted = count;
  for (const { first, last } of spans) {
    const here = Math.min(wanted, last - first + 1);
    if (here > 0) taken.push({ first, last: first + here - 1 });
    if (first + here <= last) left.push({ first: first + here, last });
    wanted -= here;
  }
  return { taken, left };
}

/** Shares that differ by one slot at most, in the order of the slots. */
export function equalShares(
  spans: readonly SlotSpan[],
  shares: number,
): readonly (readonly SlotSpan[])[] {
  const total = countSlots(spans);
  let rest = spans;
  return Array.from({ length: shares }, (_, at) => {
    const size = Math.floor(((at + 1) * total) / shares) - Math.floor((at * total) / shares);
    const { taken, left } = takeSlots(rest, size);
    rest = left;
    return taken;
  });
}

/** One by one. */
export function* slotsOf(spans: readonly SlotSpan[]): Generator<Slot> {
  for (const { first, last } of spans)
    for (let slot = first; slot <= last; slot++) yield slot as Slot;
}

/** Of ascending slots. */
export function spansOf(slots: readonly Slot[]): readonly SlotSpan[] {
  const spans: { first: number; last: number }[] = [];
  for (const slot of slots) {
    const before = spans.at(-1);
    if (before !== undefined && before.last + 1 === slot) before.last = slot;
    else spans.push({ first: slot, last: slot });
  }
  return spans;
}
