/**
 * Where a request goes: to this node's replica, to the node that leads, or back to the client with
 * a hint. A request that surely had no effect is tried again while there is time, so that an
 * election costs a client a wait and no error.
 */
import type { ErrorDetail } from '../../proto/messages.js';
import { KvError, type ErrorCode } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import type { Write, WriteResult } from '../shard/command.js';
import type { ScanStart } from '../shard/scan-cursor.js';
import type { ReadResult, ScanPage, ScanPageRequest, Written } from '../shard/shard.js';
import { isPin } from '../router/pins.js';
import { anySlot, slotOf, type Slot } from '../router/slot.js';
import { refusalError } from './convert.js';
import type { NodeCalls } from './forwarder.js';
import type { Level } from './read-level.js';
import { toKvError } from './status.js';
import type { CallContext } from './unary.js';

/** Between two attempts at a shard that has no leader just now. */
const retryMs = 15;
/** A shard without a leader for this long: the client is told, instead of being kept waiting. */
const leaderlessMsMax = 5000;

export type { ReadResult, ScanPage, ScanPageRequest } from '../shard/shard.js';

/** What the dispatch needs of this node's replica of a shard. Callbacks are called exactly once. */
export interface ShardAccess {
  readonly isLeader: boolean;
  /** Node id of the leader, as far as this replica knows. */
  readonly leaderNode: number | undefined;
  /** `call.mayHaveApplied` is set before the command is proposed. */
  write(
    writes: readonly Write[],
    call: CallContext,
    done: (error: KvError | undefined, result: Written | undefined) => void,
  ): void;
  read(
    keys: readonly Uint8Array[],
    level: Level,
    call: CallContext,
    done: (error: KvError | undefined, result: ReadResult | undefined) => void,
  ): void;
  /** One page, one view. KV_INVALID for a cursor that no scan gave out. */
  scan(
    page: ScanPageRequest,
    call: CallContext,
    done: (error: KvError | undefined, result: ScanPage | undefined) => void,
  ): void;
}

/** A shard without a replica on this node: somebody else has to be asked. */
export interface RemoteShard {
  /** The node that led it when last heard of, or one that has a replica. */
  readonly bestNode: number | undefined;
  /** `node` said that `leader` leads. */
  learn(leader: number): void;
  /** `node` could not be reached: another one is asked next. */
  avoid(node: number): void;
}

/** Who has a slot, as far as this node knows. */
export type Route =
  | { readonly kind: 'local'; readonly shard: ShardAccess }
  | { readonly kind: 'remote'; readonly shard: RemoteShard }
  /** Nobody yet; the error says why. */
  | { readonly kind: 'none'; readonly error: KvError };

export interface DispatchOptions {
  readonly clock: Clock;
  readonly forwarder: Pick<NodeCalls, 'forward'>;
  /** Equal objects for slots of one shard. */
  readonly routeOf: (slot: Slot) => Route;
  /** The slot of a key, by the pins that this node knows. */
  readonly slotOf: (key: Uint8Array) => Slot;
  /** Where a scan begins. Throws KvError KV_INVALID. */
  readonly startOf: (page: ScanStart) => Place;
  /** Client address of a node; undefined when it is not known. */
  readonly addressOf: (node: number) => string | undefined;
  readonly clusterId: string;
  readonly mapVersion: () => number;
  /** Who has the slot, and the node to ask; undefined as long as there is no cluster. */
  readonly ownerOf: (slot: Slot) => OwnerHint | undefined;
  /** Another node named the owner of a slot. */
  readonly onOwner: (slot: Slot, owner: Omit<OwnerHint, 'node'>) => void;
  /** Somebody named a version of the map: whoever hears of a newer one is behind. */
  readonly onMapVersion: (version: number) => void;
  readonly diskFull: () => boolean;
}

export interface OwnerHint {
  readonly shard: number;
  readonly epoch: number;
  /** Its leader or, where that is not known, a node that has a replica. */
  readonly node: number | undefined;
}

type HintFields = Pick<ErrorDetail, 'shardId' | 'slotEpoch' | 'mapVersion' | 'pinSlot'>;

/** Where a request belongs. */
export interface Place {
  /** By the hash of its key, or of one of them. */
  readonly home: Slot;
  /** That, or the pin that the key belongs to, as far as this node knows just now. */
  readonly slot: () => Slot;
}

/** Errors that say: not here. They carry a hint to where. */
const misdirected: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'KV_NOT_LEADER',
  'KV_WRONG_SHARD',
  'KV_UNAVAILABLE',
]);

/** A call that another node may have to answer. */
interface Passable {
  readonly call: CallContext;
  /** The client wants a redirect instead of forwarding. */
  readonly redirect: boolean;
  /** The call to be passed on, encoded only then. */
  readonly path: string;
  readonly request: () => Uint8Array;
}

interface Routed extends Passable {
  readonly place: Place;
  /** Its keys lie in other slots too: not one route for all of them, once slots move. */
  readonly severalSlots?: boolean;
}

export interface WriteRequest extends Routed {
  readonly writes: readonly Write[];
  /** Needs room on the disk. */
  readonly grows: boolean;
}

/** `result` when it was carried out here, `forwarded` (the reply's bytes) when elsewhere. */
export type Done<T> = (
  error: KvError | undefined,
  result: T | undefined,
  forwarded: Uint8Array | undefined,
) => void;

export interface ReadRequest extends Routed {
  readonly keys: readonly Uint8Array[];
  readonly level: Level;
  /** Only the leader is to answer, with its log time. */
  readonly wantLogTime?: boolean;
}

export interface ScanRequestHere extends Passable {
  readonly page: ScanPageRequest;
}

export class Dispatch {
  readonly clusterId: string;
  readonly mapVersion: () => number;
  private readonly options: DispatchOptions;

  constructor(options: DispatchOptions) {
    this.options = options;
    this.clusterId = options.clusterId;
    this.mapVersion = options.mapVersion;
  }

  /** Whatever tells the owners of slots apart: equal for slots that can go in one command. */
  ownerOf(slot: Slot): unknown {
    const route = this.options.routeOf(slot);
    return route.kind === 'none' ? undefined : route.shard;
  }

  /** A request or a reply came from somebody with this version of the map. */
  onMapVersion(version: number | undefined): void {
    if (version !== undefined && version > this.mapVersion()) this.options.onMapVersion(version);
  }

  /** The slot of a key, by the pins that this node knows. */
  slotOf(key: Uint8Array): Slot {
    return this.options.slotOf(key);
  }

  placeOf(key: Uint8Array): Place {
    return { home: slotOf(key), slot: () => this.options.slotOf(key) };
  }

  /** Where a scan goes on. */
  slotBehind(page: ScanStart): Slot {
    return this.options.startOf(page).slot();
  }

  /** What another node's error says of the owner of the slot: of the pin that it names, if it names one. */
  learn(home: Slot, { shardId = 0, slotEpoch = 0, mapVersion, pinSlot = 0 }: HintFields): void {
    this.onMapVersion(mapVersion);
    const slot = pinSlot > 0 ? anySlot(pinSlot) : home;
    if (shardId > 0) this.options.onOwner(slot, { shard: shardId, epoch: slotEpoch });
  }

  /** Where to go next by what an error says: perhaps to a pin, or past one, that no map here names yet. */
  hinted(home: Slot, { shardId = 0, pinSlot = 0 }: HintFields): Slot | undefined {
    if (shardId === 0) return undefined;
    const slot = pinSlot > 0 ? anySlot(pinSlot) : home;
    return this.options.ownerOf(slot) === undefined ? undefined : slot;
  }

  /** The error with the way to the slot's owner, unless the node that it is from has told it. */
  explain(error: KvError, { home, slot: placed }: Place): KvError {
    const { fields, code } = error;
    if (!misdirected.has(code) || (fields.mapVersion ?? 0) > 0) return error;
    // Which slot is not there is for the shard to say, of the others this node judges.
    const otherwise = code === 'KV_WRONG_SHARD' ? home : placed();
    const { pinSlot = 0 } = fields;
    const slot = pinSlot > 0 ? anySlot(pinSlot) : otherwise;
    const owner = this.options.ownerOf(slot);
    if (owner === undefined) return error;
    const { shard: shardId, epoch: slotEpoch, node } = owner;
    const address = node === undefined ? undefined : this.options.addressOf(node);
    const leader =
      code === 'KV_WRONG_SHARD' && node !== undefined && address !== undefined
        ? { leaderNode: node, leaderAddress: address }
        : {};
    const mapVersion = this.mapVersion();
    const pin = isPin(slot) ? { pinSlot: slot } : {};
    return new KvError(error.message, {
      ...fields,
      mapVersion,
      shardId,
      slotEpoch,
      ...pin,
      ...leader,
    });
  }

  write(request: WriteRequest, done: Done<Written>): void {
    this.persevere(request, done, (route, answer) => {
      if (route.kind === 'remote') this.passOnTo(route.shard, request, answer);
      else if (!route.shard.isLeader) this.passOn(route.shard.leaderNode, request, answer);
      else if (request.grows && this.options.diskFull()) answer(diskFull(), undefined, undefined);
      else {
        route.shard.write(request.writes, request.call, (error, result) => {
          const misrouted = error ?? this.misrouted(request.place, result);
          answer(misrouted, misrouted === undefined ? result : undefined, undefined);
        });
      }
    });
  }

  /** No write was for this shard, or none is just now: as good as an error. */
  private misrouted(place: Place, result: Written | undefined): KvError | undefined {
    const [first] = result?.results ?? [];
    const all = result?.results.every(isMisrouted) === true;
    return all && first?.kind === 'refused'
      ? this.explain(refusalError(first.refusal, first.pin), place)
      : undefined;
  }

  /** Any replica reads for itself, also a follower's, unless log time is asked for. */
  read(request: ReadRequest, done: Done<ReadResult>): void {
    const { keys, level, call, wantLogTime = false } = request;
    this.persevere(request, done, (route, answer) => {
      if (route.kind === 'remote') this.passOnTo(route.shard, request, answer);
      else if (wantLogTime && !route.shard.isLeader)
        this.passOn(route.shard.leaderNode, request, answer);
      else {
        route.shard.read(keys, level, call, (error, result) => {
          // Elected just now, or deposed: its time has not begun, or is not its own any more.
          if (wantLogTime && result?.logTimeMs === 0)
            answer(notLeader(undefined, undefined), undefined, undefined);
          else answer(error, result, undefined);
        });
      }
    });
  }

  scan(request: ScanRequestHere, done: Done<ScanPage>): void {
    let place: Place;
    try {
      place = this.options.startOf(request.page);
    } catch (error) {
      done(toKvError(error), undefined, undefined);
      return;
    }
    const explained: Done<ScanPage> = (error, result, forwarded) => {
      done(error && this.explain(error, place), result, forwarded);
    };
    this.persevere({ ...request, place }, explained, (route, answer) => {
      if (route.kind === 'remote') this.passOnTo(route.shard, { ...request, place }, answer);
      else {
        route.shard.scan(request.page, request.call, (error, result) => {
          answer(error, result, undefined);
        });
      }
    });
  }

  /** Attempts, each by the route of its moment, until there is an answer or no point in another. */
  private persevere<T>(
    request: Routed,
    done: Done<T>,
    act: (route: Exclude<Route, { kind: 'none' }>, answer: Done<T>) => void,
  ): void {
    const patience = new Patience(this.options.clock, request);
    const { home, slot: placed } = request.place;
    let hinted: Slot | undefined;
    const attempt = (): void => {
      const slot = hinted ?? placed();
      const answer: Done<T> = (error, result, forwarded) => {
        hinted = error && this.hinted(home, error.fields);
        if (error === undefined || !patience.again(error, attempt)) done(error, result, forwarded);
      };
      const route = this.options.routeOf(slot);
      if (route.kind === 'none') answer(route.error, undefined, undefined);
      else act(route, answer);
    };
    attempt();
  }

  private passOnTo<T>(shard: RemoteShard, request: Routed, done: Done<T>): void {
    const node = shard.bestNode;
    this.passOn<T>(node, request, (error, result, reply) => {
      const { leaderNode = 0 } = error?.fields ?? {};
      if (error?.code === 'KV_NOT_LEADER' && leaderNode > 0) shard.learn(leaderNode);
      else if (error !== undefined && node !== undefined) shard.avoid(node);
      done(error, result, reply);
    });
  }

  private passOn<T>(node: number | undefined, request: Routed, done: Done<T>): void {
    const address = node === undefined ? undefined : this.options.addressOf(node);
    if (address === undefined || request.redirect || request.call.forwarded) {
      done(notLeader(node, address), undefined, undefined);
      return;
    }
    const { path, call, place } = request;
    this.options.forwarder.forward(
      { address, path, request: request.request(), call },
      (error, reply) => {
        if (error !== undefined) this.learn(place.home, error.fields);
        done(error, undefined, reply);
      },
    );
  }
}

/** Decides whether a failed attempt is worth another one, and when. */
class Patience {
  private readonly clock: Clock;
  private readonly call: CallContext;
  private readonly redirect: boolean;
  private readonly severalSlots: boolean;
  private readonly untilMs: number;

  constructor(clock: Clock, { call, redirect, severalSlots = false }: Routed) {
    this.clock = clock;
    this.call = call;
    this.redirect = redirect;
    this.severalSlots = severalSlots;
    this.untilMs = Math.min(call.deadlineMs, clock.monotonicMs() + leaderlessMsMax);
  }

  /** True when `attempt` will be called again later; false: give the error to the client. */
  again(error: KvError, attempt: () => void): boolean {
    if (!isPassing(error) || this.call.ended) return false;
    if (this.severalSlots && isMisrouting(error)) return false;
    // A forwarded request is answered at once: its first node does the waiting (rule D41). A client
    // that asked for redirects goes to the leader or the owner itself.
    // A slot on its way must not hold up what shares a batch with it: that client tries it again alone.
    if (this.call.forwarded || (this.redirect && error.code !== 'KV_UNAVAILABLE')) return false;
    if (this.clock.monotonicMs() + retryMs >= this.untilMs) return false;
    this.clock.after(retryMs, () => {
      if (!this.call.ended) attempt();
    });
    return true;
  }
}

/**
 * It may be otherwise in a moment, here or elsewhere, and nothing was applied. A wrong shard: this node's
 * map is behind, or the owner's is; both catch up.
 */
export function isPassing({ code, outcome }: Pick<KvError, 'code' | 'outcome'>): boolean {
  return outcome === 'notApplied' && (misdirected.has(code) || code === 'KV_MOVING');
}

/** The slot is not there, or not just now. */
export function isMisrouting({ code }: { readonly code: string }): boolean {
  return code === 'KV_WRONG_SHARD' || code === 'KV_MOVING';
}

/** Refused because of where the slot is: the same write may go elsewhere, or a little later. */
export function isMisrouted(result: WriteResult): boolean {
  return (
    result.kind === 'refused' && (result.refusal === 'wrongShard' || result.refusal === 'moving')
  );
}

export function diskFull(): KvError {
  return new KvError(
    'the disk of this node is nearly full: writes are refused, reads and deletes go on; ' +
      'free space in the data directory, or lower --disk-reserve-mib',
    { code: 'KV_DISK_FULL', outcome: 'notApplied', retryAfterMs: 1000 },
  );
}

/** Without an address there is no leader just now: an election is under way, or no majority. */
function notLeader(node: number | undefined, address: string | undefined): KvError {
  if (node === undefined || address === undefined) {
    return new KvError(
      'the shard has no leader just now: an election is under way, or a majority of its nodes is away',
      {
        code: 'KV_UNAVAILABLE',
        outcome: 'notApplied',
        retryAfterMs: 100,
      },
    );
  }
  return new KvError(`this node does not lead the shard: ask node ${node} at ${address}`, {
    code: 'KV_NOT_LEADER',
    outcome: 'notApplied',
    leaderNode: node,
    leaderAddress: address,
  });
}
