/** One command of the metadata group from the command line, and what became of it. */
import type { OperationInfo } from '../../proto/messages.js';
import type { QuorateClient } from '../client/index.js';
import type { ClientFlags } from './options.js';
import { printJson, Unhealthy } from './output.js';

const pollMs = 500;

export interface Issued {
  readonly node?: number;
  readonly shard?: number;
  readonly replica?: number;
  readonly operation?: number;
  readonly migrations?: readonly number[];
  readonly pin?: number;
}

/** `ifVersion`: only at this version of the map; 0: at any. Says what came of it, and gives the ids. */
export async function carryOut(
  client: QuorateClient,
  flags: ClientFlags,
  command: object,
  ifVersion = 0,
): Promise<Issued> {
  const { changed, version, issued } = await client.changeCluster(command, { ifVersion });
  const ids = JSON.parse(issued) as Issued;
  if (flags.output === 'json') {
    printJson({ changed, version, issued: ids });
    return ids;
  }
  const given = Object.entries(ids).map(([name, id]) => `, ${name} ${briefIds(id)}`);
  console.log(`${changed ? 'ok' : 'nothing to change'}, map version ${version}${given.join('')}`);
  return ids;
}

/** '3', '3 to 9', '1, 4, 5'. */
function briefIds(ids: number | readonly number[]): string {
  if (typeof ids === 'number') return String(ids);
  const [first = 0, last = first] = [ids[0], ids.at(-1)];
  return ids.length > 3 && last - first === ids.length - 1 ? `${first} to ${last}` : ids.join(', ');
}

/** The same where the ids do not matter. */
export async function change(...given: Parameters<typeof carryOut>): Promise<void> {
  await carryOut(...given);
}

/** Says each step of an operation until it has ended. Rejects (exit code 3) when it did not end well. */
export async function follow(
  client: QuorateClient,
  flags: ClientFlags,
  { operation: id }: Issued,
): Promise<void> {
  let shown = '';
  for (;;) {
    const operation = await operationOf(client, id);
    const { what, state, progress } = operation;
    const line = flags.output === 'json' ? JSON.stringify(operation) : `${state}: ${progress}`;
    if (line !== shown) console.log(line);
    shown = line;
    if (state === 'done') return;
    if (state !== 'running') throw new Unhealthy(`${what}: ${state}: ${progress}`);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

async function operationOf(client: QuorateClient, id: number | undefined): Promise<OperationInfo> {
  const { operations } = await client.topology();
  const found = operations.find(({ operationId }) => operationId === id);
  if (found !== undefined) return found;
  throw new Error(`operation ${String(id)} is not known: it ended long ago (cluster status)`);
}
