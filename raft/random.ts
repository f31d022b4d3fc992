/**
 * The only source of randomness: a small generator (mulberry32) seeded at construction, so that a
 * member's behaviour is a function of its inputs and its seed.
 */
export class Random {
  private state: number;

  /** `seed`: unsigned 32-bit. */
  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** A whole number from 0 to bound - 1. */
  below(bound: number): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = this.state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
  }
}
