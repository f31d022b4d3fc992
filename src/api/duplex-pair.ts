/**
 * Two ends of a connection inside this process: what is written to one end is read at the other,
 * with backpressure. (`stream.duplexPair` of Node 22, for Node 20.)
 */
import { Duplex } from 'node:stream';

class End extends Duplex {
  private other: End | undefined;
  private more: (() => void) | undefined;

  join(other: End): void {
    this.other = other;
  }

  override _read(): void {
    const more = this.more;
    this.more = undefined;
    more?.();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const { other } = this;
    if (other === undefined || other.destroyed) {
      done();
      return;
    }
    if (chunk.length === 0) queueMicrotask(done);
    else if (other.push(chunk)) done();
    else other.more = done;
  }

  override _final(done: () => void): void {
    this.other?.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { other } = this;
    // The other side sees the end of its input, as with a socket that was closed.
    if (other !== undefined && !other.destroyed && !other.readableEnded) other.push(null);
    const more = this.more;
    this.more = undefined;
    more?.();
    done(error);
  }
}

export function duplexPair(): readonly [Duplex, Duplex] {
  const left = new End();
  const right = new End();
  left.join(right);
  right.join(left);
  return [left, right];
}
