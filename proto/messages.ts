/**
 * The shapes of the decoded messages of kv.proto, admin.proto, topology.proto and errors.proto; the
 * .proto files document every field. A test compares these lists with them, so they cannot drift.
 *
 * A message that was decoded has every scalar (the default if it was not sent) and `null` for a
 * message, oneof member or optional field that was not sent; one that is to be encoded may leave
 * anything out. Decoded bytes alias the received buffer: copy what outlives the request.
 */

type Optional<T> = T | null | undefined;

/** Kinds of read, as numbered in kv.proto. */
export const ReadLevel = { LINEARIZABLE: 0, LEASE: 1, STALE: 2, AT_LEAST: 3 } as const;

/** What a failed write may have done, as numbered in errors.proto. */
export const OutcomeCode = { NOT_APPLIED: 0, UNKNOWN: 1 } as const;

export interface SessionMessage {
  clientId: Uint8Array;
  sequence: number;
  firstUnacknowledged?: number;
  notAfterMs?: number;
}

export interface SlotPositionMessage {
  slot: number;
  epoch: number;
  revision: number;
  logTimeMs: number;
}

export interface SessionTokenMessage {
  clusterId: string;
  positions: SlotPositionMessage[];
}

export interface RequestHeader {
  mapVersion?: number;
  redirect?: boolean;
  token?: Uint8Array;
  returnToken?: boolean;
  wantLogTime?: boolean;
}

export interface ReplyHeader {
  mapVersion?: number;
  logTimeMs?: number;
  token?: Uint8Array;
}

export interface KeyValueMessage {
  key: Uint8Array;
  value: Uint8Array;
  revision: number;
  expiresAtMs: number;
}

export interface GetRequest {
  header?: Optional<RequestHeader>;
  key: Uint8Array;
  level?: number;
  maxStalenessMs?: number;
}

export interface GetReply {
  header?: Optional<ReplyHeader>;
  found: boolean;
  kv?: Optional<KeyValueMessage>;
}

export interface PutRequest {
  header?: Optional<RequestHeader>;
  session?: Optional<SessionMessage>;
  key: Uint8Array;
  value: Uint8Array;
  ttlMs?: number;
  ifAbsent?: boolean;
  ifRevision?: Optional<number>;
  returnPrevious?: boolean;
}

export interface PutReply {
  header?: Optional<ReplyHeader>;
  applied: boolean;
  revision: number;
  previous?: Optional<KeyValueMessage>;
}

export interface DeleteRequest {
  header?: Optional<RequestHeader>;
  session?: Optional<SessionMessage>;
  key: Uint8Array;
  ifRevision?: Optional<number>;
  returnPrevious?: boolean;
}

export interface DeleteReply {
  header?: Optional<ReplyHeader>;
  applied: boolean;
  existed: boolean;
  revision: number;
  previous?: Optional<KeyValueMessage>;
}

export interface IncrementRequest {
  header?: Optional<RequestHeader>;
  session?: Optional<SessionMessage>;
  key: Uint8Array;
  delta: number;
  ttlMs?: number;
}

export interface IncrementReply {
  header?: Optional<ReplyHeader>;
  value: number;
  revision: number;
}

export interface CompareMessage {
  key: Uint8Array;
  exists?: Optional<boolean>;
  revision?: Optional<number>;
  value?: Optional<Uint8Array>;
  /** Which one was sent; set on decoded messages only. */
  readonly condition?: 'exists' | 'revision' | 'value' | undefined;
}

export interface OperationMessage {
  get?: Optional<GetRequest>;
  put?: Optional<PutRequest>;
  delete?: Optional<DeleteRequest>;
  increment?: Optional<IncrementRequest>;
  /** Which one was sent; set on decoded messages only. */
  readonly operation?: 'get' | 'put' | 'delete' | 'increment' | undefined;
}

export interface OperationResultMessage {
  get?: Optional<GetReply>;
  put?: Optional<PutReply>;
  delete?: Optional<DeleteReply>;
  increment?: Optional<IncrementReply>;
  error?: Optional<ErrorDetail>;
  readonly result?: 'get' | 'put' | 'delete' | 'increment' | 'error' | undefined;
}

export interface TxnRequest {
  header?: Optional<RequestHeader>;
  session?: Optional<SessionMessage>;
  compare?: CompareMessage[];
  then?: OperationMessage[];
  else?: OperationMessage[];
}

export interface TxnReply {
  header?: Optional<ReplyHeader>;
  succeeded: boolean;
  results?: OperationResultMessage[];
  revision: number;
}

export interface BatchRequest {
  header?: Optional<RequestHeader>;
  id?: number;
  operations?: OperationMessage[];
  timeoutMs?: number;
}

export interface BatchReply {
  header?: Optional<ReplyHeader>;
  id?: number;
  results?: OperationResultMessage[];
}

export interface ScanRequest {
  header?: Optional<RequestHeader>;
  prefix?: Uint8Array;
  slot?: Optional<number>;
  cursor?: Uint8Array;
  limit?: number;
  pageBytes?: number;
  level?: number;
  maxStalenessMs?: number;
  keysOnly?: boolean;
  afterKey?: Uint8Array;
}

export interface ScanReply {
  header?: Optional<ReplyHeader>;
  kvs?: KeyValueMessage[];
  cursor?: Uint8Array;
  done?: boolean;
  nextSlot?: Optional<number>;
}

export interface ErrorDetail {
  code: string;
  outcome: number;
  message: string;
  leaderNode?: number;
  leaderAddress?: string;
  mapVersion?: number;
  retryAfterMs?: number;
  limit?: number;
  size?: number;
  shardId?: number;
  slotEpoch?: number;
  pinSlot?: number;
}

export interface StatusRequest {
  readonly reserved?: never;
}

export interface InitClusterRequest {
  shards: number;
  replicas: number;
}

export interface GetTopologyRequest {
  knownVersion?: number;
}

export interface TopologyReply {
  clusterId: string;
  version: number;
  nodes: NodeInfo[];
  shards: ShardInfo[];
  slots: SlotRangeInfo[];
  document: string;
  metadataNodes: number[];
  operations: OperationInfo[];
  settings: SettingInfo[];
  migrations: MigrationInfo[];
  pins: PinInfo[];
}

export interface PinInfo {
  slot: number;
  key: Uint8Array;
  prefix: boolean;
  hashSlot: number;
  shardId: number;
  epoch: number;
  state: string;
  target: number;
  sinceMs: number;
}

export interface PlanRebalanceRequest {
  weights: ShardWeight[];
  thresholdPercent: number;
}

export interface ShardWeight {
  shardId: number;
  weight: number;
}

export interface PlanRebalanceReply {
  version: number;
  moves: PlannedMove[];
  shares: ShardShare[];
  leftOff: number;
}

export interface PlannedMove {
  slots: SlotSpanMessage[];
  source: number;
  target: number;
}

export interface ShardShare {
  shardId: number;
  weight: number;
  slots: number;
  share: number;
}

export interface MigrationInfo {
  migrationId: number;
  source: number;
  target: number;
  slots: SlotSpanMessage[];
  slotCount: number;
  state: string;
  hasRun: boolean;
  bytesPerSecond: number;
  bytesPerSecondNow: number;
  reason: string;
  moved: number;
  keys: number;
  bytes: number;
  freezeMsMax: number;
  sinceMs: number;
  endedMs: number;
}

export interface SlotSpanMessage {
  first: number;
  last: number;
}

export interface JoinRequest {
  clusterId: string;
  directoryId: Uint8Array;
  peerAddress: string;
  clientAddress: string;
  labels: string[];
  weight: number;
}

export interface JoinReply {
  nodeId: number;
  topology?: Optional<TopologyReply>;
}

export interface ChangeClusterRequest {
  command: string;
  ifVersion?: number;
}

export interface ChangeClusterReply {
  version: number;
  changed: boolean;
  issued: string;
}

export interface OperationInfo {
  operationId: number;
  kind: string;
  what: string;
  state: string;
  progress: string;
  sinceMs: number;
  node: number;
}

export interface SettingInfo {
  name: string;
  value: number;
  min: number;
  max: number;
  first: number;
  meaning: string;
}

export interface NodeInfo {
  nodeId: number;
  peerAddress: string;
  clientAddress: string;
  labels: string[];
  weight: number;
  state: string;
  stateSinceMs: number;
}

export interface ShardInfo {
  shardId: number;
  replicas: number[];
  nodes: number[];
  replication: number;
}

export interface SlotRangeInfo {
  first: number;
  last: number;
  shardId: number;
  epoch: number;
}

export interface GroupStatusMessage {
  groupId: number;
  kind: string;
  replicaId: number;
  role: string;
  term: number;
  leaderNode: number;
  leaderAddress: string;
  firstIndex: number;
  lastIndex: number;
  commitIndex: number;
  appliedIndex: number;
  voters: number[];
  learners: number[];
  slots: number;
  keys: number;
  restoring: boolean;
  voterReplicas: number[];
  learnerReplicas: number[];
  membershipCommitted: boolean;
}

export interface PeerStatusMessage {
  nodeId: number;
  peerAddress: string;
  clientAddress: string;
  connected: boolean;
  roundTripUs: number;
}

export interface StatusReply {
  clusterId: string;
  nodeId: number;
  version: string;
  uptimeMs: number;
  clientAddress: string;
  peerAddress: string;
  groups: GroupStatusMessage[];
  peers: PeerStatusMessage[];
  rssBytes: number;
  raftLogBytes: number;
  diskFreeBytes: number;
  diskFull: boolean;
}

export interface TransferLeaderRequest {
  groupId: number;
  toReplica?: number;
}

export interface TransferLeaderReply {
  leaderNode: number;
}

export interface ShardFiguresRequest {
  shardId: number;
  withSlots?: boolean;
}

export interface ShardFiguresReply {
  keys: number;
  bytes: number;
  operationsPerSecond: number;
  slots: SlotFigures[];
  exports: ExportFigures[];
}

export interface SlotFigures {
  slot: number;
  keys: number;
  bytes: number;
  operationsPerSecond: number;
}

export interface ExportFigures {
  migrationId: number;
  slotsLeft: number;
  keysLeft: number;
  bytesLeft: number;
  bytesSent: number;
  recordsSent: number;
  lag: number;
  freezes: number;
  freezeMsMedian: number;
  freezeMsP99: number;
  freezeMsMax: number;
  trouble: string;
}

export interface StepMigrationRequest {
  shardId: number;
  steps: Uint8Array[];
  slots: number[];
}

export interface StepMigrationReply {
  states: Uint8Array[];
}

export interface TakeHashRequest {
  groupId: number;
}

export interface TakeHashReply {
  index: number;
}

export interface ReplicaHashRequest {
  groupId: number;
  atIndex?: number;
}

export interface ReplicaHashReply {
  appliedIndex: number;
  hash: string;
  keys: number;
  pending: boolean;
}

export interface WatchRequest {
  fromVersion?: number;
  withDocument?: boolean;
}

export interface WatchEvent {
  topology?: Optional<TopologyReply>;
  leaders?: ShardLeader[];
  version?: number;
  heartbeatMs?: number;
}

export interface ShardLeader {
  shardId: number;
  nodeId: number;
  term: number;
}
