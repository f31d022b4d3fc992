/** One gRPC channel for each address that is spoken to. */
import { Client, credentials } from '@grpc/grpc-js';

/** Leaders' addresses come from nodes; the oldest makes room. */
const connectionsMax = 256;

export class Connections {
  private readonly clients = new Map<string, Client>();

  /** Connects when it is first used. */
  to(endpoint: string): Client {
    const known = this.clients.get(endpoint);
    if (known !== undefined) return known;
    if (this.clients.size >= connectionsMax) this.dropOldest();
    const client = new Client(endpoint, credentials.createInsecure(), {
      // A node that was killed comes back soon: look again quickly.
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 500,
      'grpc.max_receive_message_length': 64 * 1024 * 1024,
    });
    this.clients.set(endpoint, client);
    return client;
  }

  close(): void {
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
