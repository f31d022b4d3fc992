/**
 * Batch and Pipeline: many operations in one message, each on its own. The writes of a shard go
 * into one command and the reads into one read; a shard that is led elsewhere gets its share as a
 * batch of its own.
 *
 * Operations of one batch are carried out in no particular order: a read may or may not see a write
 * of the same batch.
 */
import { codecOf } from '../../proto/definitions.js';
import {
  OutcomeCode,
  type BatchReply,
  type BatchRequest,
  type ErrorDetail,
  type OperationMessage,
  type OperationResultMessage,
  type ReplyHeader,
} from '../../proto/messages.js';
import type { ErrorCode, KvError, Outcome } from '../errors.js';
import type { Clock } from '../observe/clock.js';
import type { Write } from '../shard/command.js';
import type { Written } from '../shard/shard.js';
import { mergePosition, type SlotPosition } from '../shard/slot-position.js';
import { slotOf, type Slot } from '../router/slot.js';
import {
  invalid,
  operationOf,
  operationSession,
  overLimit,
  refusalError,
  resultMessage,
} from './convert.js';
import type { Deadlines, Expiring } from './deadlines.js';
import {
  isMisrouted,
  isMisrouting,
  isPassing,
  type Dispatch,
  type ReadResult,
  type WriteRequest,
} from './dispatch.js';
import type { ReplySink } from './grpc-server.js';
import { growsData } from './kv-service.js';
import type { ApiLimits } from './limits.js';
import { levelOf, type Level } from './read-level.js';
import { positionsOf, tokenFor, within, type Positions } from './session-token.js';
import { errorDetail, toKvError } from './status.js';
import { deadlineError, deadlineOf } from './unary-call.js';
import type { CallContext, UnaryDone, UnaryMethod } from './unary.js';

export const batchPath = '/quorate.v1.KV/Batch';

const requestCodec = codecOf<BatchRequest>('quorate.v1.BatchRequest');
const replyCodec = codecOf<BatchReply>('quorate.v1.BatchReply');

/** Batches in work on one stream; further ones wait unread. */
const pipelineDepthMax = 256;

interface Read {
  readonly key: Uint8Array;
  readonly level: Level;
}

/** An operation with its place in the request. */
interface Placed<T> {
  readonly at: number;
  readonly what: T;
  readonly key: Uint8Array;
  /** By hash. */
  readonly home: Slot;
  /** Where it is looked for: a pin, if it belongs to one as far as is known. */
  slot: Slot;
}

export interface BatchServiceOptions {
  readonly dispatch: Dispatch;
  readonly limits: ApiLimits;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
}

export class BatchService {
  private readonly options: BatchServiceOptions;

  constructor(options: BatchServiceOptions) {
    this.options = options;
  }

  /** The unary call: bytes in, bytes out. */
  readonly unary: UnaryMethod = (bytes, call, done) => {
    let request: BatchRequest;
    try {
      request = requestCodec.decode(bytes);
    } catch (error) {
      done(
        invalid(`malformed protobuf: ${error instanceof Error ? error.message : String(error)}`),
        undefined,
      );
      return;
    }
    this.run(
      request,
      call,
      (reply) => {
        done(undefined, replyCodec.encode(reply));
      },
      done,
    );
  };

  /** Answers each batch as soon as it is done; they may overtake one another. */
  async pipeline(
    requests: AsyncIterable<BatchRequest>,
    sink: ReplySink<BatchReply>,
  ): Promise<void> {
    const flying = new Set<Promise<void>>();
    for await (const request of requests) {
      // The client may have gone away, or stopped reading: no point in more work then.
      if (sink.ended) break;
      const work = this.answer(request, sink).finally(() => flying.delete(work));
      flying.add(work);
      if (flying.size >= pipelineDepthMax) await Promise.race(flying);
    }
    await Promise.all(flying);
  }

  private answer(request: BatchRequest, sink: ReplySink<BatchReply>): Promise<void> {
    return new Promise((resolve, reject) => {
      const { clock, limits, deadlines } = this.options;
      const timeoutMs =
        request.timeoutMs === undefined || request.timeoutMs === 0 ? undefined : request.timeoutMs;
      const call = new PipelineCall(
        deadlineOf(timeoutMs, clock.monotonicMs(), limits),
        deadlines,
        (reply) => {
          sink.send({ ...reply, id: request.id ?? 0 }).then(resolve, reject);
        },
      );
      const failAll = (error: KvError): void => {
        call.answer(this.allFailed(request, error));
      };
      call.onExpire = failAll;
      deadlines.enter(call);
      this.run(
        request,
        call,
        (reply) => {
          call.answer(reply);
        },
        (error) => {
          failAll(toKvError(error));
        },
      );
    });
  }

  private allFailed(request: BatchRequest, error: KvError): BatchReply {
    const detail = errorDetail(error);
    return { results: (request.operations ?? []).map(() => ({ error: detail })) };
  }

  /** Calls exactly one of `done` and, for a request that is wrong as a whole, `refuse`. */
  private run(
    request: BatchRequest,
    call: CallContext,
    done: (reply: BatchReply) => void,
    refuse: UnaryDone,
  ): void {
    const operations = request.operations ?? [];
    const { batchLengthMax } = this.options.limits;
    if (operations.length === 0) {
      refuse(invalid('the batch is empty: give at least one operation'), undefined);
    } else if (operations.length > batchLengthMax) {
      refuse(overLimit('number of operations', operations.length, batchLengthMax), undefined);
    } else {
      new BatchRun(this.options.dispatch, this.options.limits, request, call, done).start(refuse);
    }
  }
}

/**
 * The call as one share of a batch sees it. What a share knows of its own effect must not speak for the
 * others: one that surely had none would make a promise for one that may have had (rule D04).
 */
class ShareCall implements CallContext {
  private readonly call: CallContext;
  private readonly onChange: (change: 1 | -1) => void;
  private may = false;

  constructor(call: CallContext, onChange: (change: 1 | -1) => void) {
    this.call = call;
    this.onChange = onChange;
  }

  get deadlineMs(): number {
    return this.call.deadlineMs;
  }

  get forwarded(): boolean {
    return this.call.forwarded;
  }

  get ended(): boolean {
    return this.call.ended;
  }

  get mayHaveApplied(): boolean {
    return this.may;
  }

  set mayHaveApplied(may: boolean) {
    if (may === this.may) return;
    this.may = may;
    this.onChange(may ? 1 : -1);
  }
}

/** One batch under way: fills in results until none is missing. */
class BatchRun {
  private readonly results: (OperationResultMessage | undefined)[];
  private missing: number;
  /** Of operations that may do better elsewhere, or later. */
  private readonly passing: KvError[] = [];
  private refuse: UnaryDone = () => undefined;
  private logTimeMs = 0;
  private sharesThatMayHaveApplied = 0;
  /** What the token of the batch as a whole names, and what the one of its reply will. */
  private positions: Positions = new Map();
  private readonly seen = new Map<Slot, SlotPosition>();
  private readonly dispatch: Dispatch;
  private readonly limits: ApiLimits;
  private readonly operations: readonly OperationMessage[];
  private readonly request: BatchRequest;
  private readonly call: CallContext;
  private readonly done: (reply: BatchReply) => void;

  constructor(
    dispatch: Dispatch,
    limits: ApiLimits,
    request: BatchRequest,
    call: CallContext,
    done: (reply: BatchReply) => void,
  ) {
    this.dispatch = dispatch;
    this.limits = limits;
    this.request = request;
    this.operations = request.operations ?? [];
    this.call = call;
    this.done = done;
    this.results = new Array<OperationResultMessage | undefined>(this.operations.length);
    this.missing = this.operations.length;
  }

  start(refuse: UnaryDone): void {
    this.refuse = refuse;
    try {
      this.positions = positionsOf(this.request.header, this.dispatch.clusterId);
    } catch (error) {
      refuse(toKvError(error), undefined);
      return;
    }
    this.dispatch.onMapVersion(this.request.header?.mapVersion);
    const writes: Placed<Write>[] = [];
    const reads = new Map<string, Placed<Read>[]>();
    for (const [at, message] of this.operations.entries()) {
      try {
        this.sort(at, message, writes, reads);
      } catch (error) {
        this.fail(at, toKvError(error));
      }
    }
    for (const share of this.sharesOf(writes)) this.write(share);
    for (const placed of reads.values()) {
      for (const share of this.sharesOf(placed)) this.read(share);
    }
  }

  private sort(
    at: number,
    message: OperationMessage,
    writes: Placed<Write>[],
    reads: Map<string, Placed<Read>[]>,
  ): void {
    const operation = operationOf(message, this.limits);
    const { key } = operation;
    const [home, slot] = [slotOf(key), this.dispatch.slotOf(key)];
    const { header } = message.get ?? message.put ?? message.delete ?? message.increment ?? {};
    const own = positionsOf(header, this.dispatch.clusterId, home);
    if (operation.kind !== 'get') {
      const what = { operation, session: operationSession(message) };
      writes.push({ at, what, key, home, slot });
      return;
    }
    const positions = own.size > 0 ? own : within(this.positions, home);
    const level = levelOf(message.get ?? {}, positions);
    const bounded = level.kind === 'stale' || level.kind === 'atLeast';
    const name = bounded ? `${level.kind} ${level.maxStalenessMs}` : level.kind;
    const group = reads.get(name);
    const read = { at, what: { key, level }, key, home, slot };
    if (group === undefined) reads.set(name, [read]);
    else group.push(read);
  }

  /** The operations by owner. */
  private sharesOf<T>(placed: readonly Placed<T>[]): readonly (readonly Placed<T>[])[] {
    const shares = new Map<unknown, Placed<T>[]>();
    for (const each of placed) {
      const owner = this.dispatch.ownerOf(each.slot);
      const share = shares.get(owner);
      if (share === undefined) shares.set(owner, [each]);
      else share.push(each);
    }
    return [...shares.values()];
  }

  private write(share: readonly Placed<Write>[]): void {
    const [first] = share;
    if (first === undefined) return;
    this.dispatch.write(
      {
        writes: share.map(({ what }) => what),
        grows: share.some(({ what }) => growsData(what.operation)),
        ...this.passable(share),
      },
      (error, result, forwarded) => {
        if (error !== undefined)
          this.failOrPart(share, error, (each) => {
            this.write(each);
          });
        else if (forwarded !== undefined)
          this.takeForwarded(share, forwarded, (each) => {
            this.write(each);
          });
        else if (result !== undefined) this.takeWritten(share, result);
      },
    );
  }

  private takeWritten(
    share: readonly Placed<Write>[],
    { results, logTimeMs, positionsOf: positionsAt }: Written,
  ): void {
    this.logTimeMs = Math.max(this.logTimeMs, logTimeMs);
    const misrouted: Placed<Write>[] = [];
    for (const [n, placed] of share.entries()) {
      const { at, key } = placed;
      const result = results[n];
      if (result === undefined || result.kind === 'transaction') {
        this.fail(at, toKvError(new Error('a write of a batch has no result')));
      } else if (isMisrouted(result) && result.kind === 'refused') {
        this.aim(placed, this.explained(refusalError(result.refusal, result.pin), placed).fields);
        misrouted.push(placed);
      } else if (result.kind === 'refused') {
        this.fail(at, this.explained(refusalError(result.refusal, result.pin), placed));
      } else {
        const header = this.headerAt(at, () => positionsAt(key));
        this.set(at, resultMessage(result, header));
      }
    }
    // The slots of some have moved, or are about to: those go on by themselves, each slot alone.
    for (const each of bySlot(misrouted)) this.write(each);
  }

  private takeForwarded<T>(
    share: readonly Placed<T>[],
    bytes: Uint8Array,
    again: (share: readonly Placed<T>[]) => void,
  ): void {
    const reply = replyCodec.decode(bytes);
    this.logTimeMs = Math.max(this.logTimeMs, reply.header?.logTimeMs ?? 0);
    for (const position of positionsOf(reply.header, this.dispatch.clusterId).values())
      mergePosition(this.seen, position);
    this.dispatch.onMapVersion(reply.header?.mapVersion);
    const misrouted: Placed<T>[] = [];
    for (const [n, placed] of share.entries()) {
      const result = reply.results?.[n];
      if (result?.error) {
        this.dispatch.learn(placed.home, result.error);
        this.aim(placed, result.error);
      }
      if (result === undefined)
        this.fail(placed.at, toKvError(new Error('the reply of the leader is too short')));
      // Not all of them, or the whole would have been refused: these go on by themselves.
      else if (result.error && isPassing(toOutcome(result.error))) misrouted.push(placed);
      else this.set(placed.at, result);
    }
    for (const each of bySlot(misrouted)) again(each);
  }

  /** All of one level; with session tokens the answer serves the furthest of them. */
  private read(share: readonly Placed<Read>[]): void {
    const [first] = share;
    if (first === undefined) return;
    this.dispatch.read(
      {
        keys: share.map(({ what }) => what.key),
        level: joined(share.map(({ what }) => what.level)),
        ...this.passable(share),
      },
      (error, result, forwarded) => {
        // Whose token was it?
        if (error?.code === 'KV_TOKEN_MISMATCH' && share.length > 1)
          for (const each of share) this.read([each]);
        else if (error !== undefined)
          this.failOrPart(share, error, (each) => {
            this.read(each);
          });
        else if (forwarded !== undefined)
          this.takeForwarded(share, forwarded, (each) => {
            this.read(each);
          });
        else if (result !== undefined) this.takeRead(share, result);
      },
    );
  }

  private takeRead(share: readonly Placed<Read>[], result: ReadResult): void {
    const { values, positionsAt, logTimeMs, refused } = result;
    this.logTimeMs = Math.max(this.logTimeMs, logTimeMs);
    for (const [n, error] of refused) {
      const placed = share[n];
      if (placed !== undefined) this.aim(placed, this.explained(error, placed).fields);
    }
    for (const each of bySlot(share.filter((_, n) => refused.has(n)))) this.read(each);
    for (const [n, { at }] of share.entries()) {
      if (refused.has(n)) continue;
      const header = this.headerAt(at, () => positionsAt(n));
      this.set(at, resultMessage({ kind: 'get', kv: values[n] }, header));
    }
  }

  /** Notes what was seen for the token of the batch; gives an operation that asked its own. */
  private headerAt(at: number, seen: () => readonly SlotPosition[]): ReplyHeader | undefined {
    const { get, put, delete: del, increment } = this.operations[at] ?? {};
    const { header } = get ?? put ?? del ?? increment ?? {};
    const ofBatch = this.request.header?.returnToken === true;
    if (!ofBatch && header?.returnToken !== true) return undefined;
    const positions = seen();
    if (ofBatch) for (const position of positions) mergePosition(this.seen, position);
    const token = tokenFor(header, this.dispatch.clusterId, () => positions);
    return token.token === undefined ? undefined : token;
  }

  /** A share of the batch as a batch of its own, for whoever has its shard. */
  private passable(
    share: readonly Placed<unknown>[],
  ): Pick<WriteRequest, 'place' | 'call' | 'redirect' | 'severalSlots' | 'path' | 'request'> {
    const [first] = share;
    return {
      place: { home: first?.home ?? (0 as Slot), slot: () => first?.slot ?? (0 as Slot) },
      severalSlots: share.some(({ slot }) => slot !== share[0]?.slot),
      call: new ShareCall(this.call, (change) => {
        this.sharesThatMayHaveApplied += change;
        this.call.mayHaveApplied = this.sharesThatMayHaveApplied > 0;
      }),
      redirect: this.request.header?.redirect === true,
      path: batchPath,
      // Encoded only if it is passed on.
      request: () => {
        const operations = share.map(({ at }) => this.operations[at] ?? {});
        return requestCodec.encode({ header: this.request.header, operations });
      },
    };
  }

  /** A share of several slots that is not where it was looked for may belong in several places by now. */
  private failOrPart<T>(
    share: readonly Placed<T>[],
    error: KvError,
    again: (share: readonly Placed<T>[]) => void,
  ): void {
    const parts = isMisrouting(error) ? bySlot(share) : [];
    if (parts.length > 1) for (const each of parts) again(each);
    else this.failShare(share, error);
  }

  private failShare(share: readonly Placed<unknown>[], error: KvError): void {
    for (const placed of share) this.fail(placed.at, this.explained(error, placed));
  }

  private explained(error: KvError, { home, slot }: Placed<unknown>): KvError {
    return this.dispatch.explain(error, { home, slot: () => slot });
  }

  /** Where it goes next: by what was said of it, or by what is known by now. */
  private aim(placed: Placed<unknown>, said: Parameters<Dispatch['hinted']>[1]): void {
    placed.slot = this.dispatch.hinted(placed.home, said) ?? this.dispatch.slotOf(placed.key);
  }

  private fail(at: number, error: KvError): void {
    if (isPassing(error)) this.passing.push(error);
    this.set(at, { error: errorDetail(error) });
  }

  private set(at: number, result: OperationResultMessage): void {
    this.results[at] = result;
    this.missing -= 1;
    if (this.missing > 0) return;
    const [error] = this.passing;
    // Who passed it on knows better where else to go, or waits (rule D41).
    if (this.call.forwarded && this.passing.length === this.operations.length) {
      this.refuse(error, undefined);
      return;
    }
    const header: ReplyHeader = {
      mapVersion: this.dispatch.mapVersion(),
      logTimeMs: this.logTimeMs,
      ...tokenFor(this.request.header, this.dispatch.clusterId, () => this.seen.values()),
    };
    this.done({ header, results: this.results.filter((each) => each !== undefined) });
  }
}

function toOutcome({ code, outcome }: ErrorDetail): { code: ErrorCode; outcome: Outcome } {
  // The peer runs this same table of codes.
  return {
    code: code as ErrorCode,
    outcome: outcome === OutcomeCode.UNKNOWN ? 'unknown' : 'notApplied',
  };
}

function bySlot<T>(share: readonly Placed<T>[]): readonly (readonly Placed<T>[])[] {
  const slots = new Map<Slot, Placed<T>[]>();
  for (const each of share) {
    const others = slots.get(each.slot);
    if (others === undefined) slots.set(each.slot, [each]);
    else others.push(each);
  }
  return [...slots.values()];
}

/** Levels of one kind and bound as one. */
function joined(levels: readonly Level[]): Level {
  const [first = { kind: 'linearizable' }] = levels;
  if (first.kind !== 'atLeast') return first;
  const positions = new Map<Slot, SlotPosition>();
  for (const level of levels)
    if (level.kind === 'atLeast')
      for (const position of level.positions.values()) mergePosition(positions, position);
  return { ...first, positions };
}

/** One batch of a stream as a call with a deadline of its own. */
class PipelineCall implements CallContext, Expiring {
  readonly forwarded = false;
  ended = false;
  mayHaveApplied = false;
  onExpire: (error: KvError) => void = () => undefined;
  readonly deadlineMs: number;
  private readonly deadlines: Deadlines;
  private readonly send: (reply: BatchReply) => void;

  constructor(deadlineMs: number, deadlines: Deadlines, send: (reply: BatchReply) => void) {
    this.deadlineMs = deadlineMs;
    this.deadlines = deadlines;
    this.send = send;
  }

  expire(): void {
    this.onExpire(deadlineError(this.mayHaveApplied));
  }

  answer(reply: BatchReply): void {
    if (this.ended) return;
    this.ended = true;
    this.deadlines.leave(this);
    this.send(reply);
  }
}
