/**
 * The KV service: decode, check, route, carry out or pass on, encode. One implementation behind
 * both doors. Callbacks and no Promise, because every put and get comes through here.
 */
import { codecOf } from '../../proto/definitions.js';
import type {
  DeleteReply,
  DeleteRequest,
  GetReply,
  GetRequest,
  IncrementReply,
  IncrementRequest,
  PutReply,
  PutRequest,
  ReplyHeader,
  RequestHeader,
  SessionMessage,
  TxnReply,
  TxnRequest,
} from '../../proto/messages.js';
import { KvError } from '../errors.js';
import type { Write, WriteResult } from '../shard/command.js';
import type { Written } from '../shard/shard.js';
import type { SlotPosition } from '../shard/slot-position.js';
import { slotOf } from '../router/slot.js';
import {
  acrossPin,
  checkKey,
  deleteOf,
  getReply,
  incrementOf,
  invalid,
  putOf,
  refusalError,
  resultMessage,
  sessionOf,
  transactionKeys,
  transactionOf,
} from './convert.js';
import type { Dispatch } from './dispatch.js';
import type { ApiLimits } from './limits.js';
import { toKvError } from './status.js';
import { levelOf } from './read-level.js';
import { positionsOf, tokenFor } from './session-token.js';
import type { CallContext, UnaryDone, UnaryMethod, UnaryMethods } from './unary.js';

const codecs = {
  getRequest: codecOf<GetRequest>('quorate.v1.GetRequest'),
  getReply: codecOf<GetReply>('quorate.v1.GetReply'),
  putRequest: codecOf<PutRequest>('quorate.v1.PutRequest'),
  putReply: codecOf<PutReply>('quorate.v1.PutReply'),
  deleteRequest: codecOf<DeleteRequest>('quorate.v1.DeleteRequest'),
  deleteReply: codecOf<DeleteReply>('quorate.v1.DeleteReply'),
  incrementRequest: codecOf<IncrementRequest>('quorate.v1.IncrementRequest'),
  incrementReply: codecOf<IncrementReply>('quorate.v1.IncrementReply'),
  txnRequest: codecOf<TxnRequest>('quorate.v1.TxnRequest'),
  txnReply: codecOf<TxnReply>('quorate.v1.TxnReply'),
};

const servicePath = '/quorate.v1.KV/';

/** Decoding fails on the client's bytes, not on ours: say so. */
function decoded<T>(decode: (bytes: Uint8Array) => T, bytes: Uint8Array): T {
  try {
    return decode(bytes);
  } catch (error) {
    throw invalid(`malformed protobuf: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** A throw on the way in is an error of the request. */
function guard(method: UnaryMethod): UnaryMethod {
  return (bytes, call, done) => {
    try {
      method(bytes, call, done);
    } catch (error) {
      done(toKvError(error), undefined);
    }
  };
}

/** What one unary write needs, taken out of its request. */
interface WriteCall<T> {
  readonly header: RequestHeader | null | undefined;
  readonly session: SessionMessage | null | undefined;
  readonly operation: Write['operation'];
  /** One of them. */
  readonly key: Uint8Array;
  readonly reply: (result: WriteResult, header: ReplyHeader) => T;
}

export class KvService {
  readonly unaryMethods: UnaryMethods;
  private readonly dispatch: Dispatch;
  private readonly limits: ApiLimits;

  constructor(options: { readonly dispatch: Dispatch; readonly limits: ApiLimits }) {
    this.dispatch = options.dispatch;
    this.limits = options.limits;
    const guarded = (method: UnaryMethod): UnaryMethod => guard(method.bind(this));
    this.unaryMethods = new Map([
      [`${servicePath}Get`, guarded(this.get)],
      [`${servicePath}Put`, guarded(this.put)],
      [`${servicePath}Delete`, guarded(this.delete)],
      [`${servicePath}Increment`, guarded(this.increment)],
      [`${servicePath}Txn`, guarded(this.txn)],
    ]);
  }

  private get(bytes: Uint8Array, call: CallContext, done: UnaryDone): void {
    const request = decoded(codecs.getRequest.decode, bytes);
    checkKey(request.key, this.limits);
    const place = this.dispatch.placeOf(request.key);
    const positions = positionsOf(request.header, this.dispatch.clusterId, place.home);
    const level = levelOf(request, positions);
    this.dispatch.onMapVersion(request.header?.mapVersion);
    this.dispatch.read(
      {
        place,
        keys: [request.key],
        level,
        call,
        redirect: request.header?.redirect === true,
        wantLogTime: request.header?.wantLogTime === true,
        path: `${servicePath}Get`,
        request: () => bytes,
      },
      (error, result, forwarded) => {
        if (result === undefined) {
          done(error && this.dispatch.explain(error, place), forwarded);
          return;
        }
        const { values, logTimeMs, positionsAt } = result;
        const header = this.header(request.header, logTimeMs, () => positionsAt(0));
        done(undefined, codecs.getReply.encode(getReply(values[0], header)));
      },
    );
  }

  private put(bytes: Uint8Array, call: CallContext, done: UnaryDone): void {
    const request = decoded(codecs.putRequest.decode, bytes);
    this.write(
      'Put',
      bytes,
      call,
      {
        header: request.header,
        session: request.session,
        operation: putOf(request, this.limits),
        key: request.key,
        reply: (result, header) => codecs.putReply.encode({ header, ...expectKind(result, 'put') }),
      },
      done,
    );
  }

  private delete(bytes: Uint8Array, call: CallContext, done: UnaryDone): void {
    const request = decoded(codecs.deleteRequest.decode, bytes);
    this.write(
      'Delete',
      bytes,
      call,
      {
        header: request.header,
        session: request.session,
        operation: deleteOf(request, this.limits),
        key: request.key,
        reply: (result, header) =>
          codecs.deleteReply.encode({ header, ...expectKind(result, 'delete') }),
      },
      done,
    );
  }

  private increment(bytes: Uint8Array, call: CallContext, done: UnaryDone): void {
    const request = decoded(codecs.incrementRequest.decode, bytes);
    this.write(
      'Increment',
      bytes,
      call,
      {
        header: request.header,
        session: request.session,
        operation: incrementOf(request, this.limits),
        key: request.key,
        reply: (result, header) =>
          codecs.incrementReply.encode({ header, ...expectKind(result, 'increment') }),
      },
      done,
    );
  }

  private txn(bytes: Uint8Array, call: CallContext, done: UnaryDone): void {
    const request = decoded(codecs.txnRequest.decode, bytes);
    const operation = transactionOf(request, this.limits);
    const keys = transactionKeys(operation);
    const [key] = keys;
    // Whether some of them are pinned is for the shard to say.
    if (key === undefined || new Set(keys.map(slotOf)).size !== 1)
      throw refusalError('tooManySlots');
    this.write(
      'Txn',
      bytes,
      call,
      {
        header: request.header,
        session: request.session,
        operation,
        key,
        reply: (result, header) => {
          const { succeeded, results, revision } = expectKind(result, 'transaction');
          const messages = results.map((each) => resultMessage(each, undefined));
          return codecs.txnReply.encode({ header, succeeded, results: messages, revision });
        },
      },
      done,
    );
  }

  private write(
    name: string,
    request: Uint8Array,
    call: CallContext,
    write: WriteCall<Uint8Array>,
    done: UnaryDone,
  ): void {
    // Names no condition of a write, but it must be of this cluster.
    positionsOf(write.header, this.dispatch.clusterId);
    const grows = growsData(write.operation);
    const place = this.dispatch.placeOf(write.key);
    this.dispatch.onMapVersion(write.header?.mapVersion);
    this.dispatch.write(
      {
        place,
        writes: [{ operation: write.operation, session: sessionOf(write.session) }],
        grows,
        call,
        redirect: write.header?.redirect === true,
        path: servicePath + name,
        request: () => request,
      },
      (error, result, forwarded) => {
        if (forwarded !== undefined) done(undefined, forwarded);
        else if (result === undefined)
          done(error && this.dispatch.explain(error, place), undefined);
        else this.answer(result, write, done);
      },
    );
  }

  private answer(result: Written, write: WriteCall<Uint8Array>, done: UnaryDone): void {
    const [first] = result.results;
    if (first === undefined) {
      done(toKvError(new Error('a command of one write has no result')), undefined);
    } else if (first.kind === 'refused') {
      done(this.refusal(first, write), undefined);
    } else {
      const seen = (): readonly SlotPosition[] => result.positionsOf(write.key);
      done(undefined, write.reply(first, this.header(write.header, result.logTimeMs, seen)));
    }
  }

  private refusal(
    { refusal, pin }: Extract<WriteResult, { kind: 'refused' }>,
    { key, operation }: WriteCall<unknown>,
  ): KvError {
    const { dispatch } = this;
    if (refusal !== 'tooManySlots' || pin === undefined || operation.kind !== 'transaction')
      return dispatch.explain(refusalError(refusal, pin), dispatch.placeOf(key));
    return acrossPin(
      pin,
      transactionKeys(operation).find((each) => dispatch.slotOf(each) === pin),
    );
  }

  private header(
    asked: RequestHeader | null | undefined,
    logTimeMs: number,
    seen: () => readonly SlotPosition[],
  ): ReplyHeader {
    const token = tokenFor(asked, this.dispatch.clusterId, seen);
    return { mapVersion: this.dispatch.mapVersion(), logTimeMs, ...token };
  }
}

/** Does it need room? Deletes go on when the disk is nearly full. */
export function growsData(operation: Write['operation']): boolean {
  if (operation.kind === 'delete') return false;
  if (operation.kind !== 'transaction') return true;
  return [...operation.then, ...operation.else].some(
    (each) => each.kind === 'put' || each.kind === 'increment',
  );
}

/** The result of a write is of the write's own kind: anything else is a bug. */
export function expectKind<K extends WriteResult['kind']>(
  result: WriteResult,
  kind: K,
): Extract<WriteResult, { kind: K }> {
  if (result.kind === kind) return result as Extract<WriteResult, { kind: K }>;
  throw new KvError(`internal error: a ${kind} returned a result of kind ${result.kind}`, {
    code: 'KV_INTERNAL',
    outcome: 'unknown',
  });
}
