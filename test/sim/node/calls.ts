/**
 * Calls to the client ports of simulated nodes, by other nodes and by clients: bytes in, bytes or an
 * error out, with what a network does to them. A call over a way that is cut hangs until the way is
 * mended, or until its connection breaks; a call to a process that dies breaks.
 */
import type { WatchEvent } from '../../../proto/messages.js';
import { codecOf, serviceDefinition } from '../../../proto/definitions.js';
import type { TopologyWatchOptions } from '../../../proto/topology-watch.js';
import type { Deadlines, Expiring } from '../../../src/api/deadlines.js';
import type { ForwardRequest, NodeCalls } from '../../../src/api/forwarder.js';
import type { ReplySink } from '../../../src/api/grpc-server.js';
import { toKvError } from '../../../src/api/status.js';
import { deadlineError, deadlineOf } from '../../../src/api/unary-call.js';
import type { CallContext, UnaryDone } from '../../../src/api/unary.js';
import type { ClientPortOptions } from '../../../src/client-port.js';
import { KvError } from '../../../src/errors.js';
import type { SimRandom } from '../random.js';
import type { Timeline } from '../timeline.js';
import type { Life } from './life.js';
import { retransmitMs, type Links } from './links.js';

const admin = serviceDefinition('Admin');
const eventCodec = codecOf<WatchEvent>('quorate.v1.WatchEvent');

/** A process that answers at an address. */
interface Door {
  readonly place: number;
  readonly life: Life;
  readonly port: ClientPortOptions;
}

export interface SimCall {
  readonly place: number;
  readonly life: Life;
  readonly address: string;
  readonly path: string;
  readonly request: Uint8Array;
  readonly timeoutMs: number;
  readonly forwarded: boolean;
}

export interface CallsOptions {
  readonly timeline: Timeline;
  readonly links: Links;
  readonly random: SimRandom;
  readonly count: (what: 'call hung' | 'call broke') => void;
}

/** All client ports. */
export class Calls {
  private readonly options: CallsOptions;
  private readonly doors = new Map<string, Door>();
  private readonly places = new Map<string, number>();

  constructor(options: CallsOptions) {
    this.options = options;
  }

  /** Who will answer there, once it runs. */
  know(address: string, place: number): void {
    this.places.set(address, place);
  }

  open(address: string, door: Door): void {
    this.doors.set(address, door);
    door.life.onEnd(() => {
      if (this.doors.get(address) === door) this.doors.delete(address);
    });
  }

  of(place: number, life: Life): NodeCalls {
    const calls = {
      forwarded: 0,
      forward: (
        { address, path, request, call, asOrigin = false }: ForwardRequest,
        done: UnaryDone,
      ) => {
        if (!asOrigin) calls.forwarded++;
        const timeoutMs = call.deadlineMs - life.monotonicMs();
        call.mayHaveApplied = true;
        const forwarded = !asOrigin;
        this.call({ place, life, address, path, request, timeoutMs, forwarded }, (error, reply) => {
          if (error?.outcome === 'notApplied') call.mayHaveApplied = false;
          done(error, reply);
        });
      },
      close: () => undefined,
    };
    return calls;
  }

  /** Calls `done` once, in the life of the caller, if there is anything to be heard at all. */
  call(call: SimCall, done: UnaryDone): void {
    let isOpen = true;
    const answer: UnaryDone = (error, reply) => {
      call.life.enter(() => {
        if (!isOpen) return;
        isOpen = false;
        done(error, reply);
      });
    };
    this.getThrough(
      call.place,
      call,
      (door) => {
        if (door === undefined) {
          answer(unreachable(call.address), undefined);
          return;
        }
        const farewell = door.life.onEnd(() => {
          this.wayBack(door.place, call, () => {
            answer(this.broken(call.address), undefined);
          });
        });
        door.life.enter(() => {
          serve(door, call, (error, reply) => {
            farewell();
            this.wayBack(door.place, call, (isBroken) => {
              if (isBroken) answer(this.broken(call.address), undefined);
              else answer(error, reply);
            });
          });
        });
      },
      () => {
        answer(this.broken(call.address), undefined);
      },
    );
  }

  /** Tries again while the way is cut; the connection may break meanwhile. */
  private getThrough(
    from: number,
    { address }: Pick<SimCall, 'address'>,
    arrived: (door: Door | undefined) => void,
    brokeOnTheWay: () => void,
  ): void {
    const { timeline, links, random } = this.options;
    const to = this.places.get(address) ?? 0;
    const attempt = (hung: boolean): void => {
      if (links.isCut(from, to)) {
        if (!hung) this.options.count('call hung');
        if (hung && random.chance(0.02)) brokeOnTheWay();
        else
          timeline.after(retransmitMs, () => {
            attempt(true);
          });
        return;
      }
      arrived(this.doors.get(address));
    };
    timeline.after(links.delayMs(from, to), () => {
      attempt(false);
    });
  }

  private wayBack(from: number, { place, life }: SimCall, arrived: (broke: boolean) => void): void {
    const { timeline, links, random } = this.options;
    const attempt = (): void => {
      if (life.isOver) return;
      if (!links.isCut(from, place)) arrived(false);
      else if (random.chance(0.02)) arrived(true);
      else timeline.after(retransmitMs, attempt);
    };
    timeline.after(links.delayMs(from, place), attempt);
  }

  private broken(address: string): KvError {
    this.options.count('call broke');
    return new KvError(`connection to ${address} broke while a request was under way`, {
      code: 'KV_UNKNOWN_OUTCOME',
      outcome: 'unknown',
      unreachable: true,
    });
  }

  /** As `watchTopology` does it, over simulated ways. */
  watch(place: number, life: Life, options: TopologyWatchOptions): () => void {
    const watch = new Watch(options, (event) => eventCodec.decode(event));
    const end = (reason: string): void => {
      life.enter(() => {
        watch.end(reason);
      });
    };
    this.getThrough(
      place,
      { address: options.endpoint },
      (door) => {
        if (door === undefined) {
          end('connection refused');
          return;
        }
        const sink = this.sinkOf(door, { place, life, watch });
        door.life.onEnd(() => {
          end('the connection broke');
        });
        door.life.enter(() => {
          door.port.services.streamMethods.watch(options.request, sink).then(
            () => {
              end('the stream was closed');
            },
            (error: unknown) => {
              end(String(error));
            },
          );
        });
      },
      () => {
        end('the connection broke');
      },
    );
    return () => {
      watch.end(undefined);
    };
  }

  private sinkOf(
    door: Door,
    { place, life, watch }: { readonly place: number; readonly life: Life; readonly watch: Watch },
  ): ReplySink<Uint8Array> {
    const { links } = this.options;
    const flush = (event: Uint8Array): Promise<void> =>
      new Promise((resolve) => {
        // What does not arrive is noticed by its silence at one end, and not at all at the other.
        links.carry(door.place, place, () => {
          life.enter(() => {
            watch.tell(event);
          });
        });
        door.life.after(1, resolve);
      });
    return {
      send: flush,
      flush,
      get ended(): boolean {
        return watch.ended || life.isOver;
      },
    };
  }
}

const firstEventMs = 5000;
const missedMax = 3;

/** The watching end. */
class Watch {
  ended = false;
  private stopSilence: () => void = () => undefined;
  private readonly options: TopologyWatchOptions;
  private readonly decode: (event: Uint8Array) => WatchEvent;

  constructor(options: TopologyWatchOptions, decode: (event: Uint8Array) => WatchEvent) {
    this.options = options;
    this.decode = decode;
    this.expectWithin(firstEventMs);
  }

  tell(bytes: Uint8Array): void {
    if (this.ended) return;
    const event = this.decode(bytes);
    this.expectWithin((event.heartbeatMs ?? 0) * missedMax || firstEventMs);
    this.options.onEvent(event);
  }

  end(reason: string | undefined): void {
    if (this.ended) return;
    this.ended = true;
    this.stopSilence();
    if (reason !== undefined) this.options.onEnd(reason);
  }

  private expectWithin(ms: number): void {
    this.stopSilence();
    this.stopSilence = this.options.after(ms, () => {
      this.end(`nothing was heard for ${ms} ms`);
    });
  }
}

function unreachable(address: string): KvError {
  return new KvError(`${address}: connection refused`, {
    code: 'KV_UNAVAILABLE',
    outcome: 'notApplied',
    unreachable: true,
  });
}

/** What the two doors of a real port do. */
function serve(
  door: Door,
  { path, request, timeoutMs, forwarded }: SimCall,
  done: UnaryDone,
): void {
  const { services, adminMethods } = door.port;
  const method = services.unaryMethods.get(path);
  if (method !== undefined) {
    const deadlineMs = deadlineOf(timeoutMs, door.life.monotonicMs(), services.limits);
    const call = new ServedCall(deadlineMs, forwarded, services.deadlines, done);
    if (timeoutMs <= 0) call.expire();
    else {
      services.deadlines.enter(call);
      method(request, call, (error, reply) => {
        call.answer(error, reply);
      });
    }
    return;
  }
  const name = path.slice(path.lastIndexOf('/') + 1);
  const definition = admin[name];
  const adminMethod = adminMethods[name];
  if (definition === undefined || adminMethod === undefined)
    throw new Error(`there is no method ${path}`);
  const decoded: object = definition.requestDeserialize(Buffer.from(request));
  adminMethod(decoded, forwarded).then(
    (reply) => {
      done(undefined, definition.responseSerialize(reply));
    },
    (error: unknown) => {
      done(toKvError(error), undefined);
    },
  );
}

class ServedCall implements CallContext, Expiring {
  ended = false;
  mayHaveApplied = false;
  readonly deadlineMs: number;
  readonly forwarded: boolean;
  private readonly deadlines: Deadlines;
  private readonly done: UnaryDone;

  constructor(deadlineMs: number, forwarded: boolean, deadlines: Deadlines, done: UnaryDone) {
    this.deadlineMs = deadlineMs;
    this.forwarded = forwarded;
    this.deadlines = deadlines;
    this.done = done;
  }

  expire(): void {
    this.answer(deadlineError(this.mayHaveApplied), undefined);
  }

  answer(error: KvError | undefined, reply: Uint8Array | undefined): void {
    if (this.ended) return;
    this.ended = true;
    this.deadlines.leave(this);
    this.done(error, reply);
  }
}
