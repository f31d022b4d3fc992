/**
 * How often each thing happened. A fault that is switched on and never happens tests nothing, so a
 * long run reports those that stayed at 0.
 */
export const covered = [
  'seeds',
  'crash',
  'crash in mid step',
  'crash of all',
  'fast restart',
  'restart',
  'torn write',
  'write lost',
  'write kept but not reported',
  'engine rolled back',
  'engine damaged',
  'applied ahead of the hard state',
  'replica replaced',
  'forced recovery',
  'forced recovery by two operators',
  'acknowledged write lost by a recovery',
  'write ok in an older generation',
  'message of another generation',
  'old generation told by the topology',
  'pause',
  'partition',
  'one-way cut',
  'slow link',
  'message lost',
  'message duplicated',
  'message overtaken',
  'message held back for long',
  'type of message lost',
  'slow disk',
  'hung disk',
  'slow apply',
  'skewed clocks',
  'leader elected',
  'log truncated',
  'log compacted',
  'entries fetched',
  'snapshot sent',
  'snapshot lost',
  'snapshot installed',
  'snapshot refused',
  'crash in mid install',
  'log reset finished at start',
  'joint configuration left',
  'voter added',
  'voter removed',
  'learner added',
  'learner promoted',
  'leader removed',
  'transfer begun',
  'transfer done',
  'write ok',
  'write not applied',
  'write unknown',
  'write refused',
  'write overloaded',
  'read ok on leader',
  'read ok on follower',
  'read ok by lease',
  'read refused',
  'lease lost while waiting',
  'group fell quiet',
  'quiet group woken',
] as const;

export type Covered = (typeof covered)[number];

export type CoverageCounts<K extends string = Covered> = Readonly<Record<K, number>>;

/** `K`: what there is to be counted. */
export class Coverage<K extends string = Covered> {
  private readonly counted: Record<K, number>;
  private readonly names: readonly K[];

  constructor(names: readonly K[]) {
    this.names = names;
    this.counted = Object.fromEntries(names.map((name) => [name, 0])) as Record<K, number>;
  }

  count(what: K): void {
    this.counted[what]++;
  }

  get counts(): CoverageCounts<K> {
    return this.counted;
  }

  add(counts: CoverageCounts<K>): void {
    for (const what of this.names) this.counted[what] += counts[what];
  }

  /** What never happened. */
  get missing(): readonly K[] {
    return this.names.filter((what) => this.counted[what] === 0);
  }
}
