/**
 * What happened in a run: always as a hash, which two runs of one seed must share, and as lines of
 * text when somebody looks. Lines are built only then.
 */
export class Trace {
  private high = 0x811c9dc5;
  private low = 0x1b873593;
  private readonly lines: string[] = [];
  private readonly now: () => number;
  private readonly keep: number;
  private readonly print: ((line: string) => void) | undefined;

  /** `keep` is the number of last lines kept, 0 for none; `print` gets each line at once. */
  constructor(now: () => number, keep: number, print?: (line: string) => void) {
    this.now = now;
    this.keep = keep;
    this.print = print;
  }

  /** Is anybody reading? Ask before building text. */
  get isRead(): boolean {
    return this.keep > 0;
  }

  /** Takes a number into the hash. */
  mix(value: number): void {
    this.high = Math.imul(this.high ^ (value | 0), 0x01000193);
    this.low = Math.imul(this.low + (value | 0) + (this.high >>> 15), 0x85ebca6b) ^ this.high;
  }

  line(text: string): void {
    if (!this.isRead) return;
    const line = `${this.now().toFixed(2).padStart(10)} ${text}`;
    this.print?.(line);
    this.lines.push(line);
    if (this.lines.length > 2 * this.keep) this.lines.splice(0, this.lines.length - this.keep);
  }

  get last(): readonly string[] {
    return this.lines.slice(-this.keep);
  }

  /** 16 hexadecimal digits. */
  get hash(): string {
    const part = (value: number): string => (value >>> 0).toString(16).padStart(8, '0');
    return part(this.high) + part(this.low);
  }
}
