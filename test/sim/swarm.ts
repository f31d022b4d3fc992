/**
 * What a seed draws: the size and options of its group, the faults it has and how strong they are.
 * Each run has a random subset only (swarm testing): a run with every fault at once rarely gets
 * far enough for a rare combination of two, and a fault that is always there hides others.
 */
import type { RaftOptions } from '../../raft/index.js';
import { drawFrequencies, skewMaxOf } from './draws.js';
import { SimRandom } from './random.js';

/** Options that all members of a run share; id and seed are each member's own. */
export type GroupOptions = Omit<RaftOptions, 'id' | 'seed'>;

/** Probability of each fate of one message, and how long it travels. */
export interface NetworkPlan {
  readonly delayMinMs: number;
  readonly delayMaxMs: number;
  /** Links that keep the order of their messages, as a connection does while it lasts. */
  readonly ordered: boolean;
  readonly loss: number;
  readonly duplication: number;
  /** A second copy, or the message itself, comes seconds later: terms may have passed. */
  readonly longHold: number;
}

export interface DiskPlan {
  readonly syncMinMs: number;
  readonly syncMaxMs: number;
  /** One member whose disk is this many times slower, all the time; 1 for none. */
  readonly slowest: number;
}

export interface ApplyPlan {
  readonly delayMaxMs: number;
  /** Mean time between syncs of the engine. */
  readonly flushEveryMs: number;
  /** Entries kept in the log behind the durable applied index; Infinity: never compacted. */
  readonly keepEntries: number;
}

export const faultKinds = [
  'crash',
  'crashMidStep',
  'crashAll',
  'pause',
  'partition',
  'oneWayCut',
  'slowLink',
  'lostType',
  'slowDisk',
  'hungDisk',
  'slowApply',
  'engineDamage',
  'replace',
  'lostMajority',
] as const;
export type FaultKind = (typeof faultKinds)[number];

export const operationKinds = ['membership', 'transfer', 'campaign'] as const;
export type OperationKind = (typeof operationKinds)[number];

export interface SwarmPlan {
  readonly voters: number;
  readonly learners: number;
  readonly options: GroupOptions;
  readonly tickMs: number;
  /** Rates of clocks lie in [1 - skew, 1 + skew]. */
  readonly clockSkew: number;
  readonly network: NetworkPlan;
  readonly disk: DiskPlan;
  readonly apply: ApplyPlan;
  /** Mean milliseconds between two of a kind; absent when the run does not have it. */
  readonly faults: ReadonlyMap<FaultKind, number>;
  readonly operations: ReadonlyMap<OperationKind, number>;
  /** Restarts come after 0 to this many election timeouts. */
  readonly restartElectionsMax: number;
  /** How likely power is lost around an installation of a snapshot. */
  readonly installCrash: number;
  /** Commands proposed at once, at most. */
  readonly burstMax: number;
  /** How likely a fault hits the leader rather than anybody. */
  readonly leaderBias: number;
  readonly clients: number;
  readonly thinkMaxMs: number;
  readonly readShare: number;
  readonly payloadMax: number;
  /** Message objects are frozen, so that a core that writes to one that it got is found. */
  readonly freezeMessages: boolean;
}

export function drawSwarm(seed: number): SwarmPlan {
  const random = new SimRandom(seed);
  const voters = random.weighted([
    [1, 4],
    [2, 6],
    [3, 50],
    [4, 10],
    [5, 26],
    [7, 4],
  ]);
  const options = drawOptions(random);
  const calm = random.chance(0.05);
  return {
    voters,
    learners: random.chance(0.2) ? random.integer(1, 2) : 0,
    options,
    tickMs: random.weighted([
      [50, 6],
      [25, 1],
      [100, 2],
    ]),
    clockSkew: drawSkew(random, options),
    network: drawNetwork(random),
    disk: {
      syncMinMs: random.between(0.05, 2),
      syncMaxMs: random.weighted([
        [5, 5],
        [30, 3],
        [200, 1],
      ]),
      slowest: random.chance(0.35) ? random.between(5, 100) : 1,
    },
    apply: {
      delayMaxMs: random.chance(0.6) ? 0 : random.between(1, 200),
      flushEveryMs: random.between(100, 3000),
      keepEntries: random.weighted([
        [Infinity, 3],
        [random.integer(0, 8), 4],
        [random.integer(8, 100), 3],
      ]),
    },
    faults: calm ? new Map() : maybeWithRecovery(drawFaults(random), seed),
    operations: drawOperations(random, options),
    restartElectionsMax: random.weighted([
      [0.2, 4],
      [2, 4],
      [10, 2],
    ]),
    installCrash: !calm && random.chance(0.3) ? 0.5 : 0,
    burstMax: random.chance(0.5) ? 1 : random.integer(2, 12),
    leaderBias: random.between(0, 0.9),
    clients: random.integer(1, 4),
    thinkMaxMs: random.weighted([
      [20, 2],
      [100, 5],
      [400, 2],
      // Long enough for the group to fall quiet.
      [10_000, 1],
    ]),
    readShare: random.between(0.1, 0.7),
    payloadMax: random.chance(0.3) ? 120 : 8,
    freezeMessages: random.chance(0.1),
  };
}

function drawOptions(random: SimRandom): GroupOptions {
  const electionTicks = random.weighted([
    [10, 6],
    [5, 2],
    [20, 1],
  ]);
  const checkQuorum = random.chance(0.85);
  const lease = checkQuorum && random.chance(0.45);
  const small = random.chance(0.4);
  return {
    electionTicks,
    heartbeatTicks: random.integer(1, Math.max(1, Math.floor(electionTicks / 4))),
    leaseTicks: lease ? random.integer(2, Math.floor(electionTicks * 0.7)) : 0,
    preVote: random.chance(0.85),
    checkQuorum,
    entryBytesMax: 256,
    messageBytesMax: small ? random.integer(16, 200) : 4096,
    inflightMessagesMax: small ? random.integer(1, 4) : 64,
    inflightBytesMax: small ? random.integer(32, 400) : 65536,
    uncommittedBytesMax: small ? random.integer(64, 600) : 65536,
    windowBytesMax: random.chance(0.4) ? random.integer(1, 300) : 65536,
    stalledTicksMax: random.integer(2 * electionTicks, 6 * electionTicks),
    // Rule D03: a lease may rest on what a member said before it crashed and forgot.
    silentTicks: lease || random.chance(0.1) ? electionTicks : 0,
    promoteLagMax: random.integer(0, 20),
    quietTicks: random.chance(0.3) ? random.integer(1, 3 * electionTicks) : 0,
  };
}

/**
 * With a lease the rates must stay inside of its margin: the fastest follower must not reach its
 * election timeout (one tick less, for rounding) before the slowest leader's lease has ended.
 */
function drawSkew(random: SimRandom, options: GroupOptions): number {
  if (random.chance(0.4)) return 0;
  const wanted = random.between(0.001, 0.25);
  if (options.leaseTicks === 0) return wanted;
  return Math.min(wanted, skewMaxOf(options.electionTicks, options.leaseTicks));
}

function drawNetwork(random: SimRandom): NetworkPlan {
  const delayMinMs = random.between(0.1, 5);
  return {
    delayMinMs,
    delayMaxMs:
      delayMinMs +
      random.weighted([
        [5, 4],
        [50, 4],
        [400, 2],
        [2000, 1],
      ]),
    ordered: random.chance(0.4),
    loss: random.chance(0.5) ? random.tailed(0.001, 0.3) : 0,
    duplication: random.chance(0.4) ? random.tailed(0.001, 0.2) : 0,
    longHold: random.chance(0.3) ? random.tailed(0.0005, 0.02) : 0,
  };
}

/** Of a stream of its own: seeds without it mean what they meant before there was such a fault. */
function maybeWithRecovery(
  faults: Map<FaultKind, number>,
  seed: number,
): ReadonlyMap<FaultKind, number> {
  const random = new SimRandom(seed ^ 0x0d07);
  if (random.chance(0.06)) faults.set('lostMajority', random.between(3000, 12_000));
  return faults;
}

function drawFaults(random: SimRandom): Map<FaultKind, number> {
  return drawFrequencies(random, {
    crash: [0.6, 300, 6000],
    crashMidStep: [0.4, 200, 4000],
    crashAll: [0.2, 1500, 10000],
    pause: [0.35, 500, 6000],
    partition: [0.5, 500, 5000],
    oneWayCut: [0.35, 300, 4000],
    slowLink: [0.25, 500, 4000],
    lostType: [0.2, 500, 4000],
    slowDisk: [0.3, 500, 5000],
    hungDisk: [0.15, 2000, 10000],
    slowApply: [0.2, 1000, 6000],
    engineDamage: [0.15, 3000, 10000],
    replace: [0.15, 4000, 12000],
  });
}

function drawOperations(random: SimRandom, options: GroupOptions): Map<OperationKind, number> {
  const operations = new Map<OperationKind, number>();
  if (random.chance(0.45)) operations.set('membership', random.between(500, 5000));
  if (random.chance(0.35)) operations.set('transfer', random.between(500, 5000));
  // A campaign by order of nobody votes for itself inside the lease that it confirmed.
  const mayCampaign = options.leaseTicks === 0;
  if (mayCampaign && random.chance(0.2)) operations.set('campaign', random.between(500, 5000));
  return operations;
}
