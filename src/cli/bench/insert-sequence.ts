/** Numbers of the records that a workload inserts, and up to where they may be asked for. */
export class InsertSequence {
  /** Every record below it has been written or has failed. */
  acknowledged: number;
  private begun: number;
  private readonly ended = new Set<number>();
  private readonly failures = new Set<number>();

  constructor(records: number) {
    this.acknowledged = records;
    this.begun = records;
  }

  begin(): number {
    return this.begun++;
  }

  /** `written`: it is there; otherwise it may be or not. */
  end(record: number, written: boolean): void {
    if (!written) this.failures.add(record);
    this.ended.add(record);
    while (this.ended.delete(this.acknowledged)) this.acknowledged += 1;
  }

  failed(record: number): boolean {
    return this.failures.has(record);
  }
}
