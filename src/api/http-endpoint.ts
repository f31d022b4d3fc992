/** The HTTP port: metrics for machines, health for load balancers. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Address } from '../config/address.js';
import { formatAddress } from '../config/address.js';
import type { Metrics } from '../observe/metrics.js';

export interface HttpEndpointOptions {
  readonly address: Address;
  readonly metrics: Metrics;
  /** Why the node cannot serve just now; undefined when it can. */
  readonly notReady: () => string | undefined;
}

export class HttpEndpoint {
  private readonly server: Server;

  private constructor(server: Server) {
    this.server = server;
  }

  /** Rejects when the port is taken, with the address and the remedy in the message. */
  static async open({ address, metrics, notReady }: HttpEndpointOptions): Promise<HttpEndpoint> {
    const answer = async (
      path: string,
    ): Promise<{ status: number; type: string; body: string }> => {
      const plain = (status: number, body: string) => ({
        status,
        type: 'text/plain',
        body: `${body}\n`,
      });
      if (path === '/metrics')
        return { status: 200, type: metrics.contentType, body: await metrics.text() };
      // Alive: the process answers. Ready: it can serve reads and writes, here or by forwarding.
      if (path === '/healthz') return plain(200, 'ok');
      if (path === '/readyz') {
        const reason = notReady();
        return reason === undefined ? plain(200, 'ready') : plain(503, reason);
      }
      return plain(404, 'see /metrics, /healthz, /readyz');
    };
    const server = createServer((request, response) => {
      answer(request.url ?? '/').then(
        ({ status, type, body }) => response.writeHead(status, { 'content-type': type }).end(body),
        (error: unknown) => response.writeHead(500).end(`${String(error)}\n`),
      );
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        reject(
          error.code === 'EADDRINUSE'
            ? new Error(
                `HTTP address ${formatAddress(address)} is in use by another process: ` +
                  'stop it, or choose another port with --http-address',
                { cause: error },
              )
            : error,
        );
      });
      server.listen({ host: address.host, port: address.port }, resolve);
    });
    return new HttpEndpoint(server);
  }

  get port(): number {
    // A TCP server that listens has an AddressInfo, never a path.
    return (this.server.address() as AddressInfo).port;
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.server.close(() => {
        resolve();
      });
      this.server.closeAllConnections();
    });
  }
}
