/** What runs of groups and of whole nodes draw alike. */
import type { SimRandom } from './random.js';

/** Probability that a run has it at all, and between which bounds its mean time then lies, ms. */
export type Frequency = readonly [probability: number, fromMs: number, toMs: number];

/** Mean milliseconds between two of a kind, of those that the run has. */
export function drawFrequencies<K extends string>(
  random: SimRandom,
  likely: Readonly<Record<K, Frequency>>,
): Map<K, number> {
  const drawn = new Map<K, number>();
  for (const kind in likely) {
    const [probability, fromMs, toMs] = likely[kind];
    if (random.chance(probability)) drawn.set(kind, random.between(fromMs, toMs));
  }
  return drawn;
}

/**
 * How far rates of clocks may lie from 1 without breaking a lease: the fastest follower must not reach
 * its election timeout (one tick less, for rounding) before the slowest leader's lease has ended.
 */
export function skewMaxOf(electionTicks: number, leaseTicks: number): number {
  const ratio = (electionTicks - 1) / leaseTicks;
  return Math.max(0, (ratio - 1) / (ratio + 1)) * 0.95;
}
