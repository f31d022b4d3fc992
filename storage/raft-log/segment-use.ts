/**
 * How much of each segment is still needed: the bytes of frames with live entries. A segment that
 * is used by nobody can go, because the next one begins with a checkpoint of everything else.
 */
export class SegmentUse {
  private readonly bytesOf = new Map<number, number>();
  private total = 0;

  /** Live bytes of all segments. */
  get bytes(): number {
    return this.total;
  }

  /** Live bytes of one segment. */
  of(segment: number): number {
    return this.bytesOf.get(segment) ?? 0;
  }

  add(segment: number, bytes: number): void {
    this.change(segment, bytes);
  }

  release(segment: number, bytes: number): void {
    this.change(segment, -bytes);
  }

  private change(segment: number, bytes: number): void {
    const left = this.of(segment) + bytes;
    if (left < 0) throw new RangeError(`segment ${segment} released more often than used`);
    if (left === 0) this.bytesOf.delete(segment);
    else this.bytesOf.set(segment, left);
    this.total += bytes;
  }
}
