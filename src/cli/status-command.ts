/** `quorate status`: what every node says of itself and its groups, in one table. */
import { Command } from 'commander';
import pc from 'picocolors';
import type { GroupStatusMessage, StatusReply } from '../../proto/messages.js';
import type { QuorateClient } from '../client/index.js';
import { ExitCode, formatBytes, printJson, printTable } from './output.js';
import { endpointsOf, withClient, withClientFlags, type ClientFlags } from './options.js';

export interface NodeAnswer {
  readonly endpoint: string;
  readonly reply: StatusReply | undefined;
  readonly error: string | undefined;
}

/** Asks every endpoint, and every peer these name, each once. */
export async function askAll(
  client: QuorateClient,
  endpoints: readonly string[],
  timeoutMs: number,
): Promise<NodeAnswer[]> {
  const ask = async (endpoint: string): Promise<NodeAnswer> => {
    try {
      return { endpoint, reply: await client.status(endpoint, { timeoutMs }), error: undefined };
    } catch (error) {
      return {
        endpoint,
        reply: undefined,
        error: error instanceof Error ? error.message : String(error),
      };
    }
  };
  const first = await Promise.all(endpoints.map(ask));
  const peers = first.flatMap((answer) =>
    (answer.reply?.peers ?? []).map((peer) => peer.clientAddress),
  );
  const others = [...new Set(peers)].filter(
    (address) => address !== '' && !endpoints.includes(address),
  );
  return [...first, ...(await Promise.all(others.map(ask)))];
}

function groupRow(answer: NodeAnswer, reply: StatusReply, group: GroupStatusMessage): string[] {
  const role = group.role === 'leader' ? pc.green('leader') : group.role;
  return [
    String(reply.nodeId),
    answer.endpoint,
    group.kind === 'shard' ? `shard ${group.groupId}` : group.kind,
    group.restoring ? pc.yellow('restoring') : role,
    String(group.term),
    String(group.lastIndex),
    String(group.commitIndex),
    String(group.appliedIndex),
    group.kind === 'shard' ? String(group.keys) : '',
    formatBytes(reply.rssBytes),
  ];
}

/** The table of all groups on all nodes. */
export function printStatus(answers: readonly NodeAnswer[]): void {
  const head = [
    'node',
    'address',
    'group',
    'role',
    'term',
    'last',
    'commit',
    'applied',
    'keys',
    'memory',
  ];
  const rows = answers.flatMap((answer) => {
    const { reply } = answer;
    if (reply === undefined)
      return [['?', answer.endpoint, pc.red('unreachable'), '', '', '', '', '', '', '']];
    return reply.groups.map((group) => groupRow(answer, reply, group));
  });
  printTable(
    head,
    rows.sort(
      (a, b) =>
        // shard 2 before shard 10
        String(a[2]).localeCompare(String(b[2]), 'en', { numeric: true }) ||
        String(a[1]).localeCompare(String(b[1])),
    ),
  );
  for (const { endpoint, reply, error } of answers) {
    if (error !== undefined) console.log(`${endpoint}: ${error}`);
    if (reply?.diskFull === true) {
      console.log(
        pc.red(
          `${endpoint}: disk nearly full (${formatBytes(reply.diskFreeBytes)} free): writes are refused`,
        ),
      );
    }
  }
}

/** Every group that some node reports has a leader and a reachable majority. */
export function isHealthy(answers: readonly NodeAnswer[]): boolean {
  if (answers.some((answer) => answer.reply === undefined || answer.reply.diskFull)) return false;
  const groups = new Map<number, boolean>();
  for (const { reply } of answers) {
    for (const group of reply?.groups ?? []) {
      groups.set(group.groupId, (groups.get(group.groupId) ?? false) || group.role === 'leader');
    }
  }
  return groups.size > 0 && [...groups.values()].every((led) => led);
}

export function statusCommand(): Command {
  return withClientFlags(
    new Command('status').description('what every node says of itself and its groups'),
  ).action((flags: ClientFlags) =>
    withClient(flags, async (client) => {
      const answers = await askAll(client, endpointsOf(flags.endpoints), Number(flags.timeout));
      if (flags.output === 'json') printJson(answers);
      else printStatus(answers);
      const healthy = isHealthy(answers);
      if (flags.output === 'table') {
        const up = answers.filter((answer) => answer.reply !== undefined).length;
        console.log(
          `${up} of ${answers.length} nodes answer; ${healthy ? pc.green('healthy') : pc.red('not healthy')}`,
        );
      }
      if (!healthy) process.exitCode = ExitCode.unhealthy;
    }),
  );
}
