/** One gRPC channel for each address that is spoken to. */
import { Client, credentials } from '@grpc/grpc-js';
import { KvError, type Outcome } from '../errors.js';

/** Leaders' addresses come from nodes; the oldest makes room. */
const connectionsMax = 256;

export class Connections {
  private readonly clients = new Map<string, Client>();
  private readonly closing = new AbortController();

  /** Aborted when the client is closed: whatever waits ends then. */
  get closed(): AbortSignal {
    return this.closing.signal;
  }

  /**
   * Connects when it is first used. Throws KvError: KV_CANCELLED after `close`, KV_UNAVAILABLE for an
   * address that is none; it may have come from a node.
   */
  to(endpoint: string): Client {
    if (this.closed.aborted) throw closedError('notApplied');
    const known = this.clients.get(endpoint);
    if (known !== undefined) return known;
    const client = connect(endpoint);
    if (this.clients.size >= connectionsMax) this.dropOldest();
    this.clients.set(endpoint, client);
    return client;
  }

  close(): void {
    // First: a call whose channel is gone would end with an error that says less.
    this.closing.abort();
    for (const client of this.clients.values()) client.close();
    this.clients.clear();
  }

  private dropOldest(): void {
    for (const [endpoint, client] of this.clients) {
      client.close();
      this.clients.delete(endpoint);
      return;
    }
  }
}

/** `outcome`: whether the operation may have left before. */
export function closedError(outcome: Outcome): KvError {
  return new KvError('the client was closed', { code: 'KV_CANCELLED', outcome });
}

function connect(endpoint: string): Client {
  try {
    return new Client(endpoint, credentials.createInsecure(), {
      // A node that was killed comes back soon: look again quickly.
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 500,
      'grpc.max_receive_message_length': 64 * 1024 * 1024,
    });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new KvError(`'${endpoint}' is no address that can be connected to: ${why}`, {
      code: 'KV_UNAVAILABLE',
      outcome: 'notApplied',
      unreachable: true,
      cause,
    });
  }
}
