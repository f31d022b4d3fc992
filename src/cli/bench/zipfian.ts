/**
 * Zipfian numbers as YCSB draws them: Gray, Sundaresan, Englert, Baclawski, Weinberger, "Quickly
 * generating billion-record synthetic databases", SIGMOD 1994; constants and scrambling as in YCSB
 * (Cooper et al., "Benchmarking cloud serving systems with YCSB", SoCC 2010).
 */

/** How steep: the item of rank k (from 0) is drawn in proportion to 1 / (k + 1) ** theta. */
export const theta = 0.99;
/** Ranks that are scrambled over the records: YCSB's, so that its figures can be compared. */
const scrambledItems = 1e10;
/** Terms of the series that are added one by one; the rest is within 1e-14 by the formula below. */
const exactTerms = 1000;

/** The sum of 1 / k ** theta over k = 1 .. items, by Euler and Maclaurin's formula. */
export function zeta(items: number): number {
  const exact = Math.min(items, exactTerms);
  let sum = 0;
  for (let k = 1; k <= exact; k++) sum += k ** -theta;
  if (items <= exactTerms) return sum;
  const [m, n] = [exactTerms, items];
  const integral = (n ** (1 - theta) - m ** (1 - theta)) / (1 - theta);
  const ends = (n ** -theta - m ** -theta) / 2;
  return sum + integral + ends + (theta / 12) * (m ** (-theta - 1) - n ** (-theta - 1));
}

/** Draws ranks from 0 to items - 1; 0 is the most frequent. */
export class Zipfian {
  private readonly random: () => number;
  private items = 0;
  private zetaItems = 0;
  private eta = 0;

  /** `random`: from 0 to less than 1. */
  constructor(items: number, random: () => number = Math.random) {
    this.random = random;
    this.resize(items);
  }

  resize(items: number): void {
    if (items === this.items) return;
    this.items = items;
    this.zetaItems = zeta(items);
    this.eta = (1 - (2 / items) ** (1 - theta)) / (1 - zeta(2) / this.zetaItems);
  }

  next(): number {
    const u = this.random();
    const sum = u * this.zetaItems;
    if (sum < 1) return 0;
    if (sum < 1 + 0.5 ** theta) return 1;
    const rank = Math.floor(this.items * (this.eta * u - this.eta + 1) ** (1 / (1 - theta)));
    return Math.min(rank, this.items - 1);
  }
}

/** Draws records from 0 to `records` - 1, the frequent ones scattered among them. */
export class ScrambledZipfian {
  private readonly ranks: Zipfian;
  private readonly records: number;

  constructor(records: number, random: () => number = Math.random) {
    this.ranks = new Zipfian(scrambledItems, random);
    this.records = records;
  }

  next(): number {
    return scramble(this.ranks.next(), this.records);
  }
}

const offsetBasis = 0xcbf29ce484222325n;
const prime = 1099511628211n;

/** The record that has a rank: FNV-1a of its 8 bytes, lowest first, without its sign as in YCSB. */
export function scramble(rank: number, records: number): number {
  let hash = offsetBasis;
  let rest = BigInt(rank);
  for (let n = 0; n < 8; n++) {
    hash = BigInt.asUintN(64, (hash ^ (rest & 0xffn)) * prime);
    rest >>= 8n;
  }
  const signed = BigInt.asIntN(64, hash);
  return Number((signed < 0n ? -signed : signed) % BigInt(records));
}
