/**
 * Where a request goes: to this node's replica, to the node that leads, or back to the client with
 * a hint. A request that surely had no effect is tried again while there is time, so that an
 * election costs a client a wait and no error.
 */
import { KvError } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import type { CommandResult, KeyValue, Write } from '../shard/command.js';
import { slot, type Slot } from '../router/slot.js';
import type { Forwarder } from './forwarder.js';
import type { Level } from './read-level.js';
import type { CallContext } from './unary.js';

/** Between two attempts at a shard that has no leader just now. */
const retryMs = 15;
/** A shard without a leader for this long: the client is told, instead of being kept waiting. */
const leaderlessMsMax = 5000;

export interface ReadResult {
  /** In the order of the keys. */
  readonly values: readonly (KeyValue | undefined)[];
  readonly logTimeMs: number;
}

export interface ScanPageRequest {
  readonly prefix: Uint8Array;
  /** Only this slot; undefined: all, in order. */
  readonly slot: Slot | undefined;
  /** Of an earlier page; undefined: from the beginning, or after `afterKey`. */
  readonly cursor: Uint8Array | undefined;
  readonly afterKey: Uint8Array | undefined;
  readonly bytesMax: number;
  readonly lengthMax: number;
  readonly keysOnly: boolean;
  readonly level: Level;
}

export interface ScanPage {
  readonly kvs: readonly KeyValue[];
  /** Goes on after this page. */
  readonly cursor: Uint8Array;
  readonly done: boolean;
  readonly logTimeMs: number;
}

/** What the dispatch needs of this node's replica of a shard. Callbacks are called exactly once. */
export interface ShardAccess {
  readonly isLeader: boolean;
  /** Node id of the leader, as far as this replica knows. */
  readonly leaderNode: number | undefined;
  /** `call.mayHaveApplied` is set before the command is proposed. */
  write(
    writes: readonly Write[],
    call: CallContext,
    done: (error: KvError | undefined, result: CommandResult | undefined) => void,
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

export interface DispatchOptions {
  readonly clock: Clock;
  readonly forwarder: Forwarder;
  /** The replica on this node of the shard that owns the slot; undefined: owned elsewhere. */
  readonly shardOf: (slot: Slot) => ShardAccess | undefined;
  /** Client address of a node; undefined when it is not known. */
  readonly addressOf: (node: number) => string | undefined;
  readonly mapVersion: () => number;
  readonly diskFull: () => boolean;
}

export interface WriteRequest {
  readonly slot: Slot;
  readonly writes: readonly Write[];
  /** Needs room on the disk. */
  readonly grows: boolean;
  readonly call: CallContext;
  /** The client wants a redirect instead of forwarding. */
  readonly redirect: boolean;
  /** The call to be passed on, encoded only then. */
  readonly path: string;
  readonly request: () => Uint8Array;
}

/** `result` when it was carried out here, `forwarded` (the reply's bytes) when elsewhere. */
export type WriteDone = (
  error: KvError | undefined,
  result: CommandResult | undefined,
  forwarded: Uint8Array | undefined,
) => void;

export interface ReadRequest {
  readonly slot: Slot;
  readonly keys: readonly Uint8Array[];
  readonly level: Level;
  readonly call: CallContext;
}

export class Dispatch {
  readonly mapVersion: () => number;
  private readonly options: DispatchOptions;

  constructor(options: DispatchOptions) {
    this.options = options;
    this.mapVersion = options.mapVersion;
  }

  /** Whatever tells the owners of slots apart: equal for slots that can go in one command. */
  ownerOf(slot: Slot): unknown {
    return this.options.shardOf(slot);
  }

  write(request: WriteRequest, done: WriteDone): void {
    if (request.grows && this.options.diskFull()) {
      done(diskFull(), undefined, undefined);
      return;
    }
    const { call } = request;
    const patience = new Patience(this.options.clock, call, request.redirect);
    const attempt = (): void => {
      this.writeOnce(request, (error, result, forwarded) => {
        if (error === undefined || !patience.again(error, attempt)) done(error, result, forwarded);
      });
    };
    attempt();
  }

  read(
    request: ReadRequest,
    done: (error: KvError | undefined, result: ReadResult | undefined) => void,
  ): void {
    const patience = new Patience(this.options.clock, request.call, false);
    const attempt = (): void => {
      const shard = this.options.shardOf(request.slot);
      if (shard === undefined) {
        done(notOwned(request.slot), undefined);
        return;
      }
      shard.read(request.keys, request.level, request.call, (error, result) => {
        if (error === undefined || !patience.again(error, attempt)) done(error, result);
      });
    };
    attempt();
  }

  scan(
    page: ScanPageRequest,
    call: CallContext,
    done: (error: KvError | undefined, result: ScanPage | undefined) => void,
  ): void {
    const patience = new Patience(this.options.clock, call, false);
    const attempt = (): void => {
      // One shard owns all slots for now; with several, the cursor's slot decides.
      const shard = this.options.shardOf(page.slot ?? slot(0));
      if (shard === undefined) {
        done(notOwned(page.slot ?? slot(0)), undefined);
        return;
      }
      shard.scan(page, call, (error, result) => {
        if (error === undefined || !patience.again(error, attempt)) done(error, result);
      });
    };
    attempt();
  }

  private writeOnce(request: WriteRequest, done: WriteDone): void {
    const shard = this.options.shardOf(request.slot);
    if (shard === undefined) {
      done(notOwned(request.slot), undefined, undefined);
    } else if (shard.isLeader) {
      shard.write(request.writes, request.call, (error, result) => {
        done(error, result, undefined);
      });
    } else {
      this.passOn(shard.leaderNode, request, done);
    }
  }

  private passOn(leader: number | undefined, request: WriteRequest, done: WriteDone): void {
    const address = leader === undefined ? undefined : this.options.addressOf(leader);
    if (address === undefined || request.redirect || request.call.forwarded) {
      done(notLeader(leader, address), undefined, undefined);
      return;
    }
    const { path, call } = request;
    this.options.forwarder.forward(
      { address, path, request: request.request(), call },
      (error, reply) => {
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
  private readonly untilMs: number;

  constructor(clock: Clock, call: CallContext, redirect: boolean) {
    this.clock = clock;
    this.call = call;
    this.redirect = redirect;
    this.untilMs = Math.min(call.deadlineMs, clock.monotonicMs() + leaderlessMsMax);
  }

  /** True when `attempt` will be called again later; false: give the error to the client. */
  again(error: KvError, attempt: () => void): boolean {
    const passing = error.code === 'KV_NOT_LEADER' || error.code === 'KV_UNAVAILABLE';
    if (!passing || error.outcome === 'unknown' || this.call.ended) return false;
    // A forwarded request is answered at once: its first node does the waiting (rule D41). A client
    // that asked for redirects goes to the leader itself.
    if (this.call.forwarded || (this.redirect && error.code === 'KV_NOT_LEADER')) return false;
    if (this.clock.monotonicMs() + retryMs >= this.untilMs) return false;
    this.clock.after(retryMs, () => {
      if (!this.call.ended) attempt();
    });
    return true;
  }
}

function diskFull(): KvError {
  return new KvError(
    'the disk of this node is nearly full: writes are refused, reads and deletes go on; ' +
      'free space in the data directory, or lower --disk-reserve-mib',
    { code: 'KV_DISK_FULL', outcome: 'notApplied', retryAfterMs: 1000 },
  );
}

function notOwned(slot: Slot): KvError {
  return new KvError(`slot ${slot} is not served by this node`, {
    code: 'KV_WRONG_SHARD',
    outcome: 'notApplied',
  });
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
