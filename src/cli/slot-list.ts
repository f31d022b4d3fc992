/** Slots as people write them on a command line and read them in a table. */
import { joinSpans, problemOfSpans, textOfSpans, type SlotSpan } from '../router/slot-spans.js';
import { UsageError } from './output.js';

/** Ranges that a table shows. */
const shownMax = 6;

/** '0-99,200' in any order; ascending ranges that do not touch. Throws UsageError. */
export function parseSlots(name: string, text: string): readonly SlotSpan[] {
  const spans = text.split(',').map((part) => {
    const [, first, last = first] = /^\s*(\d{1,9})(?:-(\d{1,9}))?\s*$/.exec(part) ?? [];
    if (first === undefined)
      throw new UsageError(`${name}: '${part}' is no slot and no range: write 0-99,200`);
    return { first: Number(first), last: Number(last) };
  });
  const problem = problemOfSpans(spans);
  if (problem !== undefined) throw new UsageError(`${name}: ${problem}`);
  return joinSpans(spans);
}

/** '0-99, 200 and 12 ranges more'. */
export function briefSlots(spans: readonly SlotSpan[]): string {
  const shown = textOfSpans(spans.slice(0, shownMax));
  const more = spans.length - shownMax;
  if (more <= 0) return shown;
  return `${shown} and ${more} ${more === 1 ? 'range' : 'ranges'} more`;
}
