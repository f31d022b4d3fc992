/**
 * Operations that begin in one turn of the event loop leave together. Those for one node and one
 * shard make a lane; a lane is cut into batches as the sender has room.
 *
 * Bounds: operations in work, their bytes, operations and bytes of one batch, batches of one stream.
 */
import type { BatchReply, OperationResultMessage } from '../../proto/messages.js';
import { KvError } from '../errors.js';
import { attemptMsMax } from './attempts.js';
import { closedError } from './connections.js';
import { ownedResult, type Operation } from './operation.js';
import type { Slot } from '../router/slot.js';
import type { Routes } from './routes.js';
import type { Sender } from './senders.js';
import { SlotWindows } from './slot-windows.js';
import { errorOfDetail } from './wire.js';

/** The server's default limit is 10,000; smaller ones overlap on the way. */
const batchLengthMax = 1000;
/** The server's default limit is 4 MiB. A larger operation goes alone. */
const batchBytesMax = 1024 * 1024;
/** Values that one reply may bring: half of what the connection lets in. */
const replyBytesMax = 32 * 1024 * 1024;
/** At the default limit of 1 MiB a value such a reply is let in, whatever the values are. */
const valuesMin = 32;
/** A value may be so many times larger than the largest that came of late. */
const valueGrowth = 8;
const liveMax = 200_000;
const liveBytesMax = 256 * 1024 * 1024;

interface Lane {
  readonly endpoint: string;
  readonly redirect: boolean;
  readonly sender: Sender;
  /** Operations in one batch. */
  readonly lengthMax: number;
  operations: Operation[];
}

type Refused = readonly [Operation, KvError];

export interface BatcherOptions {
  readonly routes: Routes;
  readonly together: Sender;
  /** For operations that go alone. */
  readonly alone: Sender;
  readonly onReply: (reply: BatchReply) => void;
}

export class Batcher {
  private readonly options: BatcherOptions;
  private readonly live = new Set<Operation>();
  private liveBytes = 0;
  /** Begun, or due again, in this turn. */
  private fresh: Operation[] = [];
  private readonly lanes = new Map<string, Lane>();
  /** Bytes of the largest value in a reply, fading. */
  private valueBytes = replyBytesMax / valuesMin / valueGrowth;
  private readonly windows = new SlotWindows((operation) => {
    this.enqueue(operation);
  });
  private closed = false;

  constructor(options: BatcherOptions) {
    this.options = options;
  }

  submit(operation: Operation): void {
    if (this.closed) {
      operation.fail(closedError('notApplied'));
      return;
    }
    if (this.live.size >= liveMax || this.liveBytes + operation.bytes > liveBytesMax) {
      operation.fail(fullError());
      return;
    }
    this.live.add(operation);
    this.liveBytes += operation.bytes;
    const window = operation.isWrite ? operation.home : undefined;
    operation.onSettled = () => {
      this.live.delete(operation);
      this.liveBytes -= operation.bytes;
      if (window !== undefined) this.windows.leave(window, operation);
    };
    if (window === undefined) this.enqueue(operation);
    else this.windows.enter(window, operation);
  }

  close(): void {
    this.closed = true;
    for (const operation of this.live) {
      operation.fail(closedError(operation.flying ? 'unknown' : 'notApplied'));
    }
    this.fresh = [];
    this.lanes.clear();
    this.options.together.close();
    this.options.alone.close();
  }

  private enqueue(operation: Operation): void {
    // Not a microtask: operations begun by the answers of this turn are to come along.
    if (this.fresh.length === 0) setImmediate(this.flush);
    this.fresh.push(operation);
  }

  private readonly flush = (): void => {
    const { fresh } = this;
    this.fresh = [];
    for (const operation of fresh) {
      if (!operation.settled) this.laneOf(operation).operations.push(operation);
    }
    this.pump();
  };

  private laneOf(operation: Operation): Lane {
    const { alone, bytes, attempts, anyReplica } = operation;
    const { routes, together, alone: unary } = this.options;
    const slot = this.slotOf(operation);
    const endpoint = anyReplica ? routes.nextEndpoint(slot) : routes.endpointOf(slot);
    const redirect = attempts.redirect && slot !== undefined && !anyReplica;
    const single = alone || bytes > batchBytesMax;
    const shard = slot === undefined ? undefined : routes.shardOf(slot);
    const name = `${endpoint} ${redirect ? 'redirect' : 'forward'} ${single ? 'alone' : (shard ?? '')}`;
    let lane = this.lanes.get(name);
    if (lane === undefined) {
      const sender = single ? unary : together;
      const lengthMax = single ? 1 : batchLengthMax;
      lane = { endpoint, redirect, sender, lengthMax, operations: [] };
      this.lanes.set(name, lane);
    }
    return lane;
  }

  private slotOf({ hint, key }: Operation): Slot | undefined {
    return hint ?? (key && this.options.routes.slotOf(key));
  }

  /** One batch of each lane in turn, while there is room. */
  private pump(): void {
    for (let sent = true; sent;) {
      sent = false;
      for (const [name, lane] of this.lanes) {
        if (lane.operations.length === 0) this.lanes.delete(name);
        else if (lane.sender.hasRoom(lane.endpoint)) {
          this.sendFrom(lane);
          sent = true;
        }
      }
    }
  }

  private sendFrom(lane: Lane): void {
    const batch = this.cut(lane);
    const [first] = batch;
    if (first === undefined) return;
    const { routes } = this.options;
    let deadline = first.deadline;
    for (const operation of batch) {
      operation.flying = true;
      deadline = Math.max(deadline, operation.deadline);
    }
    const request = {
      header: { redirect: lane.redirect, mapVersion: routes.mapVersion },
      operations: batch.map(({ message }) => message),
      timeoutMs: Math.max(1, Math.min(attemptMsMax, deadline - Date.now())),
    };
    lane.sender.send({ endpoint: lane.endpoint, request }, (error, reply) => {
      for (const operation of batch) operation.flying = false;
      if (reply !== undefined) this.take(lane.endpoint, batch, reply);
      else if (error !== undefined) this.takeFailure(lane.endpoint, batch, error);
      this.pump();
    });
  }

  /** What goes next; what was settled while it waited is left out. Empty: nothing waits any more. */
  private cut(lane: Lane): Operation[] {
    const valuesMax = Math.max(valuesMin, replyBytesMax / (this.valueBytes * valueGrowth));
    const batch: Operation[] = [];
    let bytes = 0;
    let values = 0;
    let taken = 0;
    for (const operation of lane.operations) {
      const full =
        batch.length >= lane.lengthMax ||
        (batch.length > 0 && bytes + operation.bytes > batchBytesMax) ||
        values >= valuesMax;
      if (full) break;
      taken += 1;
      if (operation.settled) continue;
      batch.push(operation);
      bytes += operation.bytes;
      if (operation.returnsValue) values += 1;
    }
    lane.operations = lane.operations.slice(taken);
    return batch;
  }

  private take(endpoint: string, batch: readonly Operation[], reply: BatchReply): void {
    this.options.routes.reached(endpoint, reply.header?.mapVersion);
    this.options.onReply(reply);
    const refused: Refused[] = [];
    this.valueBytes = Math.max(16, this.valueBytes * 0.95);
    for (const [at, operation] of batch.entries()) {
      const result: OperationResultMessage = reply.results?.[at] ?? {};
      const error = errorOfResult(result, endpoint);
      if (error !== undefined) refused.push([operation, error]);
      else {
        this.valueBytes = Math.max(this.valueBytes, ownedResult(result, reply));
        operation.resolve(result);
      }
    }
    this.takeRefused(endpoint, refused, batch.length);
  }

  /** The batch as a whole: what waits for the same node looks for another one. */
  private takeFailure(endpoint: string, batch: readonly Operation[], error: KvError): void {
    if (error.fields.unreachable === true) {
      // First: what is put in line again must not choose this node.
      this.options.routes.onFailure(undefined, endpoint, error);
      for (const lane of this.lanes.values()) {
        if (lane.endpoint !== endpoint) continue;
        const { operations } = lane;
        lane.operations = [];
        for (const operation of operations) this.enqueue(operation);
      }
    }
    const refused = batch.map((operation): Refused => [operation, error]);
    this.takeRefused(endpoint, refused, batch.length);
  }

  /** Those of one batch that wait equally long go on together. `length`: of the batch. */
  private takeRefused(endpoint: string, refused: readonly Refused[], length: number): void {
    const waiting = new Map<number, Operation[]>();
    for (const [operation, error] of refused) {
      if (operation.settled) continue;
      const waitMs = this.waitMs(endpoint, operation, error, length);
      const others = waitMs === undefined ? undefined : waiting.get(waitMs);
      if (waitMs === undefined) operation.fail(error);
      else if (others === undefined) waiting.set(waitMs, [operation]);
      else others.push(operation);
    }
    for (const [waitMs, operations] of waiting) {
      if (waitMs === 0) this.resume(operations);
      // Each operation's own timer holds the process while it waits.
      else setTimeout(this.resume, waitMs, operations).unref();
    }
  }

  /** Until the next attempt; undefined: there is none. */
  private waitMs(
    endpoint: string,
    operation: Operation,
    error: KvError,
    length: number,
  ): number | undefined {
    const waitMs = operation.attempts.next(endpoint, error, operation.deadline);
    // Of a batch that is wrong as a whole each operation hears the same, and of a message that broke
    // the stream everything on it: which one was it?
    const wrong = error.code === 'KV_TOO_LARGE' || error.code === 'KV_INVALID';
    if (wrong && !operation.alone && (length > 1 || error.outcome === 'unknown')) {
      operation.alone = true;
      return 0;
    }
    const { routes } = this.options;
    routes.onFailure(this.slotOf(operation), endpoint, error);
    operation.hint = operation.key && routes.hinted(operation.key, error);
    return waitMs;
  }

  private readonly resume = (operations: readonly Operation[]): void => {
    for (const operation of operations) if (!operation.settled) this.enqueue(operation);
  };
}

/** Undefined: it is a success. */
function errorOfResult(result: OperationResultMessage, endpoint: string): KvError | undefined {
  if (result.error) return errorOfDetail(result.error);
  if (result.get ?? result.put ?? result.delete ?? result.increment) return undefined;
  return new KvError(`${endpoint}: the reply has no result for this operation`, {
    code: 'KV_INTERNAL',
    outcome: 'unknown',
  });
}

function fullError(): KvError {
  return new KvError(
    `more than ${liveMax} operations or ${liveBytesMax} bytes are waiting in this client: ` +
      'await some before you begin others',
    { code: 'KV_OVERLOADED', outcome: 'notApplied' },
  );
}
