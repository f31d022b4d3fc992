/** Fake nodes and a client for one test, and their end. */
import { QuorateClient, type ClientOptions } from '../../src/client/index.js';
import { KvError } from '../../src/errors.js';
import { FakeNode, FakeStore } from './fake-node.js';

export interface FakeCluster {
  readonly nodes: FakeNode[];
  readonly store: FakeStore;
  readonly client: QuorateClient;
}

export async function withNodes(
  options: { readonly nodes?: number } & Partial<ClientOptions>,
  run: (cluster: FakeCluster & { readonly node: FakeNode }) => Promise<void>,
): Promise<void> {
  const { nodes: count = 1, ...clientOptions } = options;
  const store = new FakeStore();
  const nodes: FakeNode[] = [];
  for (let n = 0; n < count; n++) nodes.push(await new FakeNode(store).start());
  const endpoints = nodes.map(({ endpoint }) => endpoint);
  const client = new QuorateClient({ endpoints, timeoutMs: 5000, ...clientOptions });
  const [node] = nodes;
  if (node === undefined) throw new RangeError('at least one node');
  try {
    await run({ nodes, store, client, node });
  } finally {
    client.close();
    for (const each of nodes) each.kill();
  }
}

/** Of a promise that must reject. */
export async function errorOf(promise: Promise<unknown>): Promise<KvError> {
  const reason: unknown = await promise.then(
    () => new Error('it did not fail'),
    (error: unknown) => error,
  );
  if (reason instanceof KvError) return reason;
  throw reason;
}

/** Fails with what is looked for when it does not come in time. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited 5 s for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export const bytes = (value: string): Uint8Array => Buffer.from(value, 'utf8');
