/** Requests of one connection that have come in part: what they hold together, and how much they may. */

/** What each piece costs beyond its bytes: a request may come in pieces of one byte. */
const pieceBytes = 256;

export class RequestParts {
  readonly bytesMax: number;
  bytes = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get isOver(): boolean {
    return this.bytes > this.bytesMax;
  }

  /** A piece of so many bytes is kept. Returns what it costs, to be given back when it is not any more. */
  keep(length: number): number {
    const cost = length + pieceBytes;
    this.bytes += cost;
    return cost;
  }

  giveBack(cost: number): void {
    this.bytes -= cost;
  }
}
