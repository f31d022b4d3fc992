/** How a new node comes to its id: it asks the nodes it was told about until one of them answers. */
import type { JoinRequest } from '../../proto/messages.js';
import { KvError } from '../errors.js';
import { parseTopology, type Topology } from '../meta/topology.js';
import type { Clock } from '../observe/clock.js';
import type { Log } from '../observe/log.js';
import type { NodeLink } from './node-link.js';
import { toKvError } from './status.js';

const retryMs = 500;
const patienceMs = 60_000;

export interface Joined {
  readonly nodeId: number;
  readonly topology: Topology;
}

export interface JoiningOptions {
  readonly addresses: readonly string[];
  readonly link: NodeLink;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Asks again under the same directory id until there is an answer, which is then the same (rule D40).
 * Rejects with KvError when the cluster refuses, or nobody can be reached for a minute.
 */
export function joinCluster(request: JoinRequest, options: JoiningOptions): Promise<Joined> {
  return persevere(options, async (address) => {
    const { nodeId, topology } = await options.link.join(address, request);
    return { nodeId, topology: parseTopology(topology?.document ?? '') };
  });
}

/** The topology, from whichever node answers first; rejects after a minute. */
export function fetchTopology(options: JoiningOptions): Promise<Topology> {
  return persevere(options, async (address) =>
    parseTopology((await options.link.topology(address)).document),
  );
}

async function persevere<T>(
  { addresses, clock, log }: JoiningOptions,
  ask: (address: string) => Promise<T>,
): Promise<T> {
  const deadline = clock.monotonicMs() + patienceMs;
  for (let turn = 0; ; turn++) {
    const address = addresses[turn % addresses.length] ?? '';
    try {
      return await ask(address);
    } catch (error) {
      const problem = toKvError(error);
      if (problem.code === 'KV_INVALID') throw problem;
      if (clock.monotonicMs() > deadline) {
        throw new KvError(
          `cannot join: none of ${addresses.join(', ')} could answer within ${patienceMs / 1000} s, the last ` +
            `said: ${problem.message}; check --join and whether the cluster has a majority`,
          { code: 'KV_UNAVAILABLE', outcome: 'notApplied', cause: error },
        );
      }
      log('warn', { address, error: problem.message }, 'joining: no answer yet');
      await new Promise<void>((resolve) => {
        clock.after(retryMs, resolve);
      });
    }
  }
}
