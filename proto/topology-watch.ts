/**
 * One Topology.Watch at one node, over a connection of its own: for clients, and for nodes without
 * the metadata group. It notices when a node that is still connected says nothing any more.
 *
 * Not over grpc-js: its connections keep a process alive as long as a stream is open.
 */
import { connect, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2';
import { codecOf } from './definitions.js';
import type { WatchEvent, WatchRequest } from './messages.js';

/** Until the first event: to connect, and for a busy node. */
const firstEventMs = 5000;
/** So many heartbeats may be missed. */
const missedMax = 3;
/** An event is one topology: 16384 slot ranges of 20 bytes, 1024 shards, and once more as JSON. */
const eventBytesMax = 16 * 1024 * 1024;
const prefixBytes = 5;

const requestCodec = codecOf<WatchRequest>('quorate.v1.WatchRequest');
const eventCodec = codecOf<WatchEvent>('quorate.v1.WatchEvent');

export interface TopologyWatchOptions {
  /** host:port of a client address. */
  readonly endpoint: string;
  readonly request: WatchRequest;
  /** Calls `fire` after so many milliseconds; returns what stops it. */
  readonly after: (ms: number, fire: () => void) => () => void;
  /** The connection keeps the process alive. */
  readonly holdsProcess: boolean;
  /** A throw ends the watch. */
  readonly onEvent: (event: WatchEvent) => void;
  /** The watch is over, and why. Called once; not after it was stopped. */
  readonly onEnd: (reason: string) => void;
}

/** Returns what stops it. An address that is none ends it a turn later, like one that does not answer. */
export function watchTopology(options: TopologyWatchOptions): () => void {
  let watch: OpenWatch;
  try {
    watch = new OpenWatch(options);
  } catch (error) {
    return options.after(0, () => {
      options.onEnd(
        `'${options.endpoint}' is no address that can be connected to: ${String(error)}`,
      );
    });
  }
  return () => {
    watch.end(undefined);
  };
}

class OpenWatch {
  private readonly options: TopologyWatchOptions;
  private readonly session: ReturnType<typeof connect>;
  private received: Buffer = Buffer.alloc(0);
  private stopSilence: () => void = () => undefined;
  private ended = false;

  constructor(options: TopologyWatchOptions) {
    this.options = options;
    this.session = connect(`http://${options.endpoint}`, {
      settings: { initialWindowSize: 1024 * 1024 },
    });
    if (!options.holdsProcess) {
      this.session.unref();
      // A name with several addresses: each attempt has a socket of its own, which holds the process.
      this.session.on('connect', () => {
        this.session.unref();
      });
    }
    this.session.on('error', (error: Error) => {
      this.end(error.message);
    });
    this.follow(
      this.session.request({
        ':method': 'POST',
        ':path': '/quorate.v1.Topology/Watch',
        'content-type': 'application/grpc+proto',
        te: 'trailers',
      }),
    );
    this.expectWithin(firstEventMs);
  }

  /** `reason` undefined: nobody is told. */
  end(reason: string | undefined): void {
    if (this.ended) return;
    this.ended = true;
    this.stopSilence();
    this.session.destroy();
    if (reason !== undefined) this.options.onEnd(reason);
  }

  private follow(stream: ClientHttp2Stream): void {
    const onStatus = (headers: IncomingHttpHeaders): void => {
      const status = headers['grpc-status'];
      if (status !== undefined)
        this.end(`status ${String(status)}: ${String(headers['grpc-message'] ?? '')}`);
    };
    stream.on('response', onStatus);
    stream.on('trailers', onStatus);
    stream.on('data', (bytes: Buffer) => {
      this.take(bytes);
    });
    stream.on('error', (error) => {
      this.end(error.message);
    });
    stream.on('close', () => {
      this.end('the stream was closed');
    });
    const request = requestCodec.encode(this.options.request);
    const prefix = Buffer.alloc(prefixBytes);
    prefix.writeUInt32BE(request.byteLength, 1);
    stream.end(Buffer.concat([prefix, request]));
  }

  private take(bytes: Buffer): void {
    this.received = Buffer.concat([this.received, bytes]);
    while (!this.ended && this.received.byteLength >= prefixBytes) {
      const behind = prefixBytes + this.received.readUInt32BE(1);
      if (this.received[0] !== 0 || behind > eventBytesMax) {
        this.end('a compressed or too large event');
      } else if (this.received.byteLength < behind) return;
      else {
        const message = this.received.subarray(prefixBytes, behind);
        this.received = this.received.subarray(behind);
        this.tell(message);
      }
    }
  }

  /** An event that cannot be read, or not be taken, says as little as silence: another node is next. */
  private tell(message: Buffer): void {
    try {
      const event = eventCodec.decode(message);
      this.expectWithin((event.heartbeatMs ?? 0) * missedMax || firstEventMs);
      this.options.onEvent(event);
    } catch (error) {
      this.end(`a malformed event: ${String(error)}`);
    }
  }

  private expectWithin(ms: number): void {
    this.stopSilence();
    this.stopSilence = this.options.after(ms, () => {
      this.end(`nothing was heard for ${ms} ms`);
    });
  }
}
