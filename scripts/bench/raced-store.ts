/** A store that is raced: three nodes on this machine, fsync on, made anew for each turn. */
export interface RacedStore {
  readonly name: string;
  readonly pids: readonly number[];
  /** Client addresses, the leader's first. */
  readonly addresses: readonly string[];
  readonly putPath: string;
  readonly getPath: string;
  /** The messages of a call. A get is linearizable. */
  putBody(key: string, value: Uint8Array): Uint8Array;
  getBody(key: string): Uint8Array;
  /** One put, by other means than the load. */
  put(key: string, value: Uint8Array): Promise<void>;
  /** A count that each applied put of one of the keys raises by one, and nothing else does. */
  putsApplied(keys: readonly string[]): Promise<number>;
  stop(): Promise<void>;
}
