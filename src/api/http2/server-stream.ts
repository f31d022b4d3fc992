/** One request and its response, from the server's side: what is known of both, and what still waits. */

/** Who takes the body of a request. */
export interface StreamConsumer {
  /** A view of what was received: is copied by whoever keeps a little of it for long. */
  onData(bytes: Buffer): void;
  /** The request is whole. */
  onEnd(): void;
  /**
   * The stream was cut, by the peer or because of it, before its response had left: nobody is left to
   * answer. Called at most once, and nothing after it.
   */
  onGone(code: number): void;
}

/** What a stream asks of its connection. */
export interface StreamPort {
  /** There is something new to send. */
  sendSoon(stream: ServerStream): void;
  /** So many bytes of a response wait. */
  held(bytes: number): void;
  /** So many bytes of a request need no room any more. */
  consumed(stream: ServerStream, bytes: number): void;
  reset(stream: ServerStream, code: number): void;
}

export class ServerStream {
  readonly id: number;
  /** What the peer allows us to send in DATA frames; below 0 after it has lowered its window. */
  sendWindow: number;
  /** What we have allowed the peer and it has not used. */
  receiveWindow: number;
  /** Consumed and not yet allowed anew. */
  unreturned = 0;
  /** Of a body whose length was announced: what is missing. */
  missing: number | undefined;
  /** The request is whole; the peer sends nothing more. */
  remoteEnded = false;
  /** Nothing is sent or taken any more. */
  closed = false;
  /** In the queue of the sender. */
  queued = false;
  consumer: StreamConsumer | undefined;
  /** Called when a body that had to wait has left down to `fewBytes`. */
  onRoom: (() => void) | undefined;

  // What waits to be sent, in this order.
  head: Uint8Array | undefined;
  body: Uint8Array[] = [];
  bodyBytes = 0;
  tail: Uint8Array | undefined;

  private readonly port: StreamPort;

  constructor(port: StreamPort, id: number, windows: { send: number; receive: number }) {
    this.port = port;
    this.id = id;
    this.sendWindow = windows.send;
    this.receiveWindow = windows.receive;
  }

  /** The fields of the response, encoded; once, before the body. */
  sendHead(block: Uint8Array): void {
    if (this.closed) return;
    this.head = block;
    this.port.sendSoon(this);
  }

  /** Is sent as the peer has room; `bytes` is not changed afterwards. */
  sendBody(bytes: Uint8Array): void {
    if (this.closed) return;
    this.body.push(bytes);
    this.bodyBytes += bytes.byteLength;
    this.port.sendSoon(this);
    this.port.held(bytes.byteLength);
  }

  /** The fields that end the response: trailers, or all there is. */
  end(block: Uint8Array): void {
    if (this.closed) return;
    this.tail = block;
    this.port.sendSoon(this);
  }

  /** So many bytes of what `onData` brought are done with. */
  consumed(bytes: number): void {
    this.port.consumed(this, bytes);
  }

  /** Ends the stream with an error; what waits is not sent. Its consumer is not told. */
  reset(code: number): void {
    this.consumer = undefined;
    if (!this.closed) this.port.reset(this, code);
  }
}
