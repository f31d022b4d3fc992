/**
 * The commands of the metadata group and what comes of them. JSON with a version in the log (rule
 * D16): a version or a kind that this program does not know stops the node, because skipping it would
 * let the replicas differ.
 *
 * The schema asks for the shape alone. What an operator can get wrong (weights, names, addresses) is
 * checked in apply and refused: a refusal is a result, a throw out of apply is the end of the node.
 * So a command of the wrong shape must not reach the log: encoding checks it as well.
 */
import { z } from 'zod';
import { settingSince } from './settings.js';

/**
 * 1 is the first; raised when a kind is added or the meaning of one changes. A command is written with
 * the lowest version in which it means what it means now: programs that know no higher one go on until
 * something new is asked for. 2: migrations, with their settings; the members of a recovered group.
 * 3: pins, and that a recovered metadata group may have forgotten some.
 */
export const commandVersion = 3;

const number = z.number();
const text = z.string();
const labels = z.record(text, text).readonly();
const nowMs = number.int().nonnegative();

const nodeFields = {
  directoryId: text,
  peerAddress: text,
  clientAddress: text,
  labels,
  weight: number,
};
const firstNode = z.strictObject({ id: number, ...nodeFields }).readonly();
const replica = z.strictObject({ replica: number, node: number }).readonly();

const init = z.strictObject({
  kind: z.literal('init'),
  clusterId: text,
  nodes: z.array(firstNode).readonly(),
  /** The voters that the metadata group has already: its Raft membership, ids and all. */
  metadata: z.array(replica).readonly(),
  shards: number,
  replication: number,
  nowMs,
});
const addNode = z.strictObject({ kind: z.literal('addNode'), ...nodeFields, nowMs });
const setNodeState = z.strictObject({
  kind: z.literal('setNodeState'),
  node: number,
  /** What the metadata leader sees of it; the other states have commands of their own. */
  state: z.enum(['up', 'suspect', 'down']),
  nowMs,
});
const setWeight = z.strictObject({ kind: z.literal('setWeight'), node: number, weight: number });
const setLabels = z.strictObject({ kind: z.literal('setLabels'), node: number, labels });
const drain = z.strictObject({
  kind: z.literal('drain'),
  node: number,
  /** The node that is to have what leaves, as far as it can; undefined: any. */
  to: number.exactOptional(),
  nowMs,
});
const undrain = z.strictObject({ kind: z.literal('undrain'), node: number, nowMs });
const removeNode = z.strictObject({
  kind: z.literal('removeNode'),
  node: number,
  force: z.boolean(),
  nowMs,
});
const addReplica = z.strictObject({ kind: z.literal('addReplica'), shard: number, node: number });
const removeReplica = z.strictObject({
  kind: z.literal('removeReplica'),
  shard: number,
  node: number,
});
const replaceReplica = z.strictObject({
  kind: z.literal('replaceReplica'),
  shard: number,
  from: number,
  to: number,
  nowMs,
});
/** Of the replicas of a shard this node's comes first: it leads when it can. */
const setLeader = z.strictObject({ kind: z.literal('setLeader'), shard: number, node: number });
/** A shard without slots, to be filled by migrations. */
const createShard = z.strictObject({ kind: z.literal('createShard'), replication: number });
const setSetting = z.strictObject({ kind: z.literal('setSetting'), name: text, value: number });
const endOperation = z.strictObject({
  kind: z.literal('endOperation'),
  id: number,
  /** `running`: it goes on, only its progress is written down. */
  state: z.enum(['running', 'done', 'failed', 'cancelled']),
  progress: text,
  nowMs,
});
/** Replicas of nodes that have one stay as they are; the others get new ids. */
const setMetadata = z.strictObject({
  kind: z.literal('setMetadata'),
  nodes: z.array(number).readonly(),
});

/** Changes nothing: every replica takes the hash of its state where it stands. */
const hash = z.strictObject({ kind: z.literal('hash') });
/**
 * A group was recovered by force (rule D07); group 0 is the metadata group itself. Said by whoever leads
 * it, again and again until the topology has it: by then the survivor may not be alone any more.
 */
const recoverGroup = z.strictObject({
  kind: z.literal('recoverGroup'),
  group: number,
  generation: number,
  /** By its committed membership, in the order in which they are to stay: the leader first. */
  members: z.array(z.strictObject({ replica: number, node: number })).min(1),
});

const slots = z.array(z.strictObject({ first: number, last: number }).readonly()).readonly();
const count = number.int().nonnegative();

const startMigrations = z.strictObject({
  kind: z.literal('startMigrations'),
  /** Each becomes a migration, or none does. */
  moves: z.array(z.strictObject({ slots, source: number, target: number }).readonly()).readonly(),
  nowMs,
});
const setMigration = z.strictObject({
  kind: z.literal('setMigration'),
  id: number,
  action: z.enum(['pause', 'resume', 'cancel']),
  reason: text,
  nowMs,
});
const throttleMigration = z.strictObject({
  kind: z.literal('throttleMigration'),
  id: number,
  /** 0: the setting holds. */
  bytesPerSecond: number,
});
/** Said by the source: it has handed these slots over. What went with them, and how long they stood still. */
const moveSlots = z.strictObject({
  kind: z.literal('moveSlots'),
  id: number,
  slots,
  keys: count,
  bytes: count,
  freezeMs: count,
  nowMs,
});
/** Said by the source: it gives up, and both sides drop what they have begun. */
const failMigration = z.strictObject({
  kind: z.literal('failMigration'),
  id: number,
  reason: text,
});
/** Said by the source: nothing is left of what was begun. */
const endMigration = z.strictObject({ kind: z.literal('endMigration'), id: number, nowMs });
/** A shard without slots. */
const removeShard = z.strictObject({ kind: z.literal('removeShard'), shard: number });
/** All its slots go to other shards, and then it is removed. */
const mergeShard = z.strictObject({
  kind: z.literal('mergeShard'),
  shard: number,
  into: z.array(number).readonly(),
  nowMs,
});
/** Equal shares of its slots go to new shards. */
const splitShard = z.strictObject({
  kind: z.literal('splitShard'),
  shard: number,
  /** How many shards it becomes, itself among them. */
  into: number,
  /** Replicas of each new one; undefined: as many as it has. */
  replication: number.exactOptional(),
  nowMs,
});

/** Keys are base64: any bytes. */
const pinKeys = z.strictObject({
  kind: z.literal('pinKeys'),
  key: text,
  isPrefix: z.boolean(),
  shard: number,
  nowMs,
});
const unpinKeys = z.strictObject({
  kind: z.literal('unpinKeys'),
  key: text,
  isPrefix: z.boolean(),
  nowMs,
});
/** Said by the shard of the hash slot: the pin has its keys. */
const pinFilled = z.strictObject({ kind: z.literal('pinFilled'), slot: number, nowMs });
/** Said by the shard of the hash slot: that has them again. */
const pinGone = z.strictObject({ kind: z.literal('pinGone'), slot: number });

const commandSchema = z
  .discriminatedUnion('kind', [
    init,
    addNode,
    setNodeState,
    setWeight,
    setLabels,
    drain,
    undrain,
    removeNode,
    addReplica,
    removeReplica,
    replaceReplica,
    setLeader,
    createShard,
    setSetting,
    endOperation,
    setMetadata,
    hash,
    recoverGroup,
    startMigrations,
    setMigration,
    throttleMigration,
    moveSlots,
    failMigration,
    endMigration,
    removeShard,
    mergeShard,
    splitShard,
    pinKeys,
    unpinKeys,
    pinFilled,
    pinGone,
  ])
  .readonly();

const kindsOfVersion2: ReadonlySet<string> = new Set<MetaCommand['kind']>([
  'recoverGroup',
  'startMigrations',
  'setMigration',
  'throttleMigration',
  'moveSlots',
  'failMigration',
  'endMigration',
  'removeShard',
  'mergeShard',
  'splitShard',
]);

const kindsOfVersion3: ReadonlySet<string> = new Set<MetaCommand['kind']>([
  'pinKeys',
  'unpinKeys',
  'pinFilled',
  'pinGone',
]);

const envelopeSchema = z
  .strictObject({
    version: z.literal([1, 2, commandVersion]),
    /** Only to be applied at this version of the topology; undefined: at any. */
    ifVersion: number.int().nonnegative().exactOptional(),
    command: commandSchema,
  })
  .readonly();

export type MetaCommand = z.output<typeof commandSchema>;
export type CommandOf<K extends MetaCommand['kind']> = Extract<MetaCommand, { readonly kind: K }>;

export interface ReceivedCommand {
  readonly command: MetaCommand;
  /** That it was written with, and means what it meant then; undefined: the newest. */
  readonly version?: number;
  readonly ifVersion?: number;
}

/** Ids that a command gave out, or those that an earlier one like it gave out. */
export interface Issued {
  readonly node?: number;
  readonly shard?: number;
  readonly replica?: number;
  readonly operation?: number;
  readonly migrations?: readonly number[];
  readonly pin?: number;
}

export type RefusalReason =
  | 'noCluster'
  | 'initTwice'
  | 'badClusterId'
  | 'badNode'
  | 'badAddress'
  | 'badLabels'
  | 'badWeight'
  | 'badReplication'
  | 'badShardCount'
  | 'badSetting'
  | 'badMetadata'
  | 'badGeneration'
  | 'addressTaken'
  | 'notEnoughHosts'
  | 'sharedHost'
  | 'unknownNode'
  | 'nodeRemoved'
  | 'nodeNotUp'
  | 'nodeDraining'
  | 'replicasLeft'
  | 'unknownShard'
  | 'unknownReplica'
  | 'lastReplica'
  | 'quorumAtRisk'
  | 'tooManyReplicas'
  | 'tooManyNodes'
  | 'tooManyShards'
  | 'operationRunning'
  | 'unknownOperation'
  | 'operationEnded'
  | 'badSlots'
  | 'badMove'
  | 'badThrottle'
  | 'badSplit'
  | 'notOwner'
  | 'slotMigrating'
  | 'tooManyMigrations'
  | 'unknownMigration'
  | 'migrationEnded'
  | 'migrationNotBegun'
  | 'shardInUse'
  | 'badPin'
  | 'pinExists'
  | 'unknownPin'
  | 'tooManyPins'
  | 'versionMoved'
  | 'futureVersion';

/** Nothing was changed. The message names the thing, the limit and what to do. */
export interface Refusal {
  readonly kind: 'refused';
  readonly reason: RefusalReason;
  readonly message: string;
}

export type MetaResult =
  | {
      readonly kind: 'done';
      /** False for a repetition or a no-op; the version stays then. */
      readonly changed: boolean;
      readonly version: number;
      readonly issued: Issued;
    }
  | (Refusal & { readonly version: number });

/** What an operator wrote, with the time at which it is taken. Throws for what is no command. */
export function parseMetaCommand(fields: unknown, now: number): MetaCommand {
  if (typeof fields !== 'object' || fields === null) throw new TypeError('a command is an object');
  const withTime = commandSchema.safeParse({ ...fields, nowMs: now });
  // Commands that have nothing to do with time refuse to be given one.
  return withTime.success ? withTime.data : commandSchema.parse(fields);
}

/** Throws for a command of the wrong shape (a weight that is no number, say). */
export function encodeMetaCommand(command: MetaCommand, ifVersion?: number): Uint8Array {
  const envelope = envelopeSchema.parse({
    version: versionOf(command),
    ...(ifVersion === undefined ? {} : { ifVersion }),
    command,
  });
  return Buffer.from(JSON.stringify(envelope), 'utf8');
}

function versionOf(command: MetaCommand): number {
  if (kindsOfVersion3.has(command.kind)) return 3;
  if (command.kind === 'recoverGroup' && command.group === 0) return 3;
  if (kindsOfVersion2.has(command.kind)) return 2;
  return command.kind === 'setSetting' ? settingSince(command.name) : 1;
}

/** Throws for whatever this program does not know; then the node must stop (rule D16). */
export function decodeMetaCommand(bytes: Uint8Array): ReceivedCommand {
  try {
    const received = envelopeSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
    const { kind } = received.command;
    // Nobody writes that: who knows such a version alone knows no such kind.
    const isNewer =
      (received.version < 2 && kindsOfVersion2.has(kind)) ||
      (received.version < 3 && kindsOfVersion3.has(kind));
    if (isNewer) throw new Error(`${kind} is no command of version ${received.version}`);
    return received;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(
      `metadata command that this program does not know (it knows version ${commandVersion}): ` +
        `upgrade this node.\n${reason}`,
      { cause: error },
    );
  }
}
