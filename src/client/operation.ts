/** One get, put, delete or increment, from its beginning to its answer. */
import type {
  BatchReply,
  OperationMessage,
  OperationResultMessage,
  ReplyHeader,
} from '../../proto/messages.js';
import { KvError } from '../errors.js';
import { slotOf, type Slot } from '../router/slot.js';
import { stopWatching, watchAbort } from './abort-watch.js';
import { Attempts } from './attempts.js';
import { isForAnyReplica } from './requests.js';
import { cancelledError } from './wire.js';

/** Bytes of an operation beside its key and value: session, tags, lengths. */
const overheadBytes = 96;

export interface OperationSpec {
  /** With its session: the same goes with every attempt. */
  readonly message: OperationMessage;
  /** Milliseconds since 1970. */
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
  /** Called once, with one of the two. */
  readonly done: (error: KvError | undefined, result: OperationResultMessage | undefined) => void;
}

export class Operation {
  readonly message: OperationMessage;
  readonly deadline: number;
  readonly attempts: Attempts;
  /** Undefined: any node will do. */
  readonly key: Uint8Array | undefined;
  /** By the hash of the key: what a client remembers of its writes is bounded by hash slot. */
  readonly home: Slot | undefined;
  /** Where the last answer sent it, for the next attempt. */
  hint: Slot | undefined;
  /** A read that followers may answer. */
  readonly anyReplica: boolean;
  /** About as many as it takes in a request. */
  readonly bytes: number;
  readonly isWrite: boolean;
  /** Its result may carry a value. */
  readonly returnsValue: boolean;
  /** Written to a connection, and not answered. */
  flying = false;
  /** Not to be sent together with others: a batch with it was refused as a whole. */
  alone = false;
  settled = false;
  /** Set by whoever queues it. */
  onSettled: () => void = () => undefined;
  private readonly spec: OperationSpec;
  private readonly timer: NodeJS.Timeout;

  constructor(spec: OperationSpec) {
    const { message, deadline, signal } = spec;
    const { get, put, increment } = message;
    const write = put ?? message.delete ?? increment;
    const key = (get ?? write)?.key;
    this.spec = spec;
    this.message = message;
    this.deadline = deadline;
    this.isWrite = Boolean(write);
    this.attempts = new Attempts(!write);
    this.anyReplica = isForAnyReplica(get?.level);
    this.key = key instanceof Uint8Array ? key : undefined;
    this.home = this.key && slotOf(this.key);
    this.bytes = (key?.byteLength ?? 0) + (put?.value.byteLength ?? 0) + overheadBytes;
    this.returnsValue = !write || isConditional(message);
    this.timer = setTimeout(this.expire, deadline - Date.now());
    watchAbort(signal, this.abort);
  }

  resolve(result: OperationResultMessage): void {
    if (this.settle()) this.spec.done(undefined, result);
  }

  /** `error`: of the last attempt. */
  fail(error: KvError): void {
    if (this.settle()) this.spec.done(this.attempts.conclude(error), undefined);
  }

  private get outcome(): KvError['outcome'] {
    return this.flying ? 'unknown' : this.attempts.outcome;
  }

  private readonly expire = (): void => {
    const text = this.flying
      ? 'no answer within the deadline'
      : 'the deadline passed before it could be sent';
    this.fail(new KvError(text, { code: 'KV_DEADLINE', outcome: this.outcome }));
  };

  private readonly abort = (): void => {
    this.fail(cancelledError(this.outcome));
  };

  private settle(): boolean {
    if (this.settled) return false;
    this.settled = true;
    clearTimeout(this.timer);
    stopWatching(this.spec.signal, this.abort);
    this.onSettled();
    return true;
  }
}

/** When the condition does not hold, what is there comes back. */
function isConditional({ put, delete: del }: OperationMessage): boolean {
  return (
    put?.ifAbsent === true ||
    put?.returnPrevious === true ||
    typeof put?.ifRevision === 'number' ||
    del?.returnPrevious === true ||
    typeof del?.ifRevision === 'number'
  );
}

/** The result in the form of a call's own reply, which holds nothing of the other results. */
export function ownedResult(result: OperationResultMessage, batch: BatchReply): number {
  const header: ReplyHeader | undefined = batch.header ?? undefined;
  const reply = result.get ?? result.put ?? result.delete ?? result.increment;
  const token = reply?.header?.token ?? new Uint8Array();
  if (reply && header !== undefined)
    reply.header = token.byteLength > 0 ? { ...header, token: Buffer.from(token) } : header;
  const kv = result.get?.kv ?? result.put?.previous ?? result.delete?.previous;
  if (!kv) return 0;
  // Decoded bytes are views of the whole reply: a short value would keep megabytes alive.
  kv.key = Buffer.from(kv.key);
  kv.value = Buffer.from(kv.value);
  return kv.value.byteLength;
}
