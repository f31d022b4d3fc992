/**
 * What a seed draws: the cluster, its options, the faults and operations it has and how often they
 * come. Each run has a random subset only (swarm testing).
 */
import { drawFrequencies, skewMaxOf } from '../draws.js';
import { SimRandom } from '../random.js';

export interface LinkPlan {
  readonly delayMinMs: number;
  readonly delayMaxMs: number;
  /** Probability that a frame between nodes is lost, as with its connection. */
  readonly loss: number;
  /** Probability of a delay of seconds. */
  readonly longHold: number;
}

export const nodeFaults = [
  'kill',
  'power cut',
  'power cut of all',
  'pause',
  'partition',
  'one-way cut',
  'client cut off',
  'slow link',
  'slow disk',
  'sync error',
  'no space',
  'disk nearly full',
  'wall clock jump',
  'node lost for good',
  'flipped bit',
] as const;
export type NodeFault = (typeof nodeFaults)[number];

export const nodeOperations = [
  'migration begun',
  'migration paused',
  'migration resumed',
  'migration cancelled',
  'leadership transferred',
  'leader placed',
  'hash asked for',
  'node drained',
  'drain ended',
  'replica added',
  'replica removed',
  'replica replaced',
  'metadata moved',
  'keys pinned',
  'keys unpinned',
  'shard split',
  'shard merged',
] as const;
export type NodeOperation = (typeof nodeOperations)[number];

export interface NodePlan {
  readonly seed: number;
  readonly nodes: number;
  readonly shards: number;
  readonly replication: number;
  /** Each stands for a slot in use. */
  readonly tags: readonly string[];
  readonly clients: number;
  readonly thinkMaxMs: number;
  readonly readShare: number;
  /** How likely an operation is one of a batch over several slots. */
  readonly batchShare: number;
  readonly valueBytes: number;
  readonly leases: boolean;
  readonly quietAfterMs: number;
  readonly tickMs: number;
  /** Of each clock, at most this much fast or slow. */
  readonly skew: number;
  readonly wallOffsetMs: number;
  readonly links: LinkPlan;
  readonly silenceMs: number;
  readonly disk: {
    readonly syncMinMs: number;
    readonly syncMaxMs: number;
    readonly slowest: number;
  };
  /** Of an engine's write, at most. */
  readonly applyMaxMs: number;
  readonly segmentKib: number;
  readonly logKeptKib: number;
  readonly replaceAfterMs: number;
  readonly freezeMsMax: number;
  readonly bytesPerSecond: number;
  /** Mean time between two of a kind, ms. */
  readonly faults: ReadonlyMap<NodeFault, number>;
  readonly operations: ReadonlyMap<NodeOperation, number>;
  /** In election timeouts, at most. */
  readonly restartElectionsMax: number;
}

export const electionTicks = 10;
export const leasePercent = 60;

export function drawNodePlan(seed: number): NodePlan {
  const random = new SimRandom(seed);
  const nodes = random.weighted([
    [3, 5],
    [4, 3],
    [5, 2],
  ]);
  const shards = random.weighted([
    [1, 2],
    [2, 5],
    [3, 3],
  ]);
  const tags = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
  const faults = drawFaults(random);
  const operations = drawOperations(random, shards);
  const later = new SimRandom(seed ^ 0x913e);
  const reshaping = drawReshaping(later);
  const batchShare = later.chance(0.3) ? later.between(0.1, 0.8) : 0;
  const damage = drawFrequencies(later, { 'flipped bit': [0.12, 1500, 5000] });
  // With one replica less the loss of a node might be the loss of a majority.
  if (faults.has('node lost for good') || damage.size > 0) operations.delete('replica removed');
  const leases = random.chance(0.35);
  const calm = random.chance(0.05);
  return {
    seed,
    nodes,
    shards,
    replication: nodes < 5 || random.chance(0.8) ? 3 : 5,
    tags: random.shuffled(tags).slice(0, random.integer(2, 4)),
    clients: random.integer(2, 4),
    thinkMaxMs: random.weighted([
      [60, 3],
      [200, 4],
      [800, 2],
    ]),
    readShare: random.between(0.15, 0.6),
    batchShare,
    valueBytes: random.weighted([
      [8, 5],
      [200, 3],
      [1500, 2],
    ]),
    leases,
    quietAfterMs: random.chance(0.3) ? random.integer(200, 1500) : 0,
    tickMs: random.pick([20, 25, 40]) ?? 25,
    skew: random.chance(0.4) ? 0 : random.between(0.001, leases ? 0.15 : 0.3),
    wallOffsetMs: random.weighted([
      [0, 3],
      [500, 3],
      [20_000, 2],
    ]),
    links: drawLinks(random),
    silenceMs: random.between(500, 3000),
    disk: {
      syncMinMs: random.between(0.1, 1),
      syncMaxMs: random.weighted([
        [3, 5],
        [30, 3],
        [200, 1],
      ]),
      slowest: random.chance(0.3) ? random.between(2, 30) : 1,
    },
    applyMaxMs: random.chance(0.4) ? random.between(0.5, 30) : 0,
    segmentKib: random.weighted([
      [4, 3],
      [16, 4],
      [256, 3],
    ]),
    logKeptKib: random.weighted([
      [2, 4],
      [8, 3],
      [1024, 3],
    ]),
    replaceAfterMs: random.weighted([
      [1000, 3],
      [3000, 3],
      [300_000, 4],
    ]),
    freezeMsMax: random.weighted([
      [100, 2],
      [500, 3],
      [2000, 4],
    ]),
    bytesPerSecond: random.weighted([
      [65_536, 3],
      [33_554_432, 5],
    ]),
    faults: calm ? new Map() : new Map([...faults, ...damage]),
    operations: new Map([...operations, ...reshaping]),
    restartElectionsMax: random.weighted([
      [0.2, 3],
      [2, 4],
      [10, 3],
    ]),
  };
}

function drawLinks(random: SimRandom): LinkPlan {
  const delayMinMs = random.between(0.1, 2);
  return {
    delayMinMs,
    delayMaxMs:
      delayMinMs +
      random.weighted([
        [3, 5],
        [30, 4],
        [300, 1],
      ]),
    loss: random.chance(0.4) ? random.tailed(0.001, 0.15) : 0,
    longHold: random.chance(0.25) ? random.tailed(0.0005, 0.01) : 0,
  };
}

function drawFaults(random: SimRandom): ReadonlyMap<NodeFault, number> {
  return drawFrequencies(random, {
    kill: [0.5, 700, 5000],
    'power cut': [0.5, 700, 5000],
    'power cut of all': [0.2, 2000, 8000],
    pause: [0.35, 700, 5000],
    partition: [0.4, 700, 5000],
    'one-way cut': [0.3, 500, 5000],
    'client cut off': [0.2, 1000, 6000],
    'slow link': [0.2, 500, 4000],
    'slow disk': [0.25, 700, 5000],
    'sync error': [0.2, 2000, 10_000],
    'no space': [0.15, 2000, 10_000],
    'disk nearly full': [0.1, 2000, 8000],
    'wall clock jump': [0.2, 1000, 5000],
    'node lost for good': [0.15, 2000, 8000],
  });
}

function drawOperations(random: SimRandom, shards: number): Map<NodeOperation, number> {
  return drawFrequencies(random, {
    'migration begun': [shards > 1 ? 0.85 : 0, 300, 2500],
    'migration paused': [0.25, 1000, 4000],
    'migration resumed': [0.4, 700, 2000],
    'migration cancelled': [0.25, 700, 4000],
    'leadership transferred': [0.35, 700, 4000],
    'leader placed': [0.2, 1500, 5000],
    'hash asked for': [0.4, 500, 3000],
    'node drained': [0.15, 2000, 6000],
    'drain ended': [0.3, 1500, 4000],
    'replica added': [0.15, 2000, 6000],
    'replica removed': [0.15, 2000, 6000],
    'replica replaced': [0.25, 1500, 6000],
    'metadata moved': [0.15, 2000, 6000],
  });
}

/** Of a stream of its own: seeds without it mean what they meant before there was such a thing. */
function drawReshaping(random: SimRandom): ReadonlyMap<NodeOperation, number> {
  const pins = random.chance(0.35) ? 1 : 0;
  const shards = random.chance(0.1) ? 1 : 0;
  return drawFrequencies(random, {
    'keys pinned': [pins, 300, 2000],
    'keys unpinned': [0.8 * pins, 500, 3000],
    'shard split': [0.8 * shards, 800, 4000],
    'shard merged': [0.7 * shards, 1000, 5000],
  });
}

/** Rates stay inside of the margin that leases leave. */
export function clockRate(plan: NodePlan, random: SimRandom): number {
  const leaseTicks = Math.floor((electionTicks * leasePercent) / 100);
  const max = plan.leases ? Math.min(plan.skew, skewMaxOf(electionTicks, leaseTicks)) : plan.skew;
  return max === 0 ? 1 : 1 + random.between(-max, max);
}
