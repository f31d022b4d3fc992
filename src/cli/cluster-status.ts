/** `quorate cluster status|version`: the whole cluster on one screen. */
import pc from 'picocolors';
import type { QuorateClient } from '../client/index.js';
import { slotsOf, takePicture, type GroupPicture, type Picture } from './cluster-picture.js';
import { isOpen, movedText, progressOf } from './migration-progress.js';
import type { ClientFlags } from './options.js';
import { ExitCode, formatAge, formatBytes, formatCount, printJson, printTable } from './output.js';

/** With more shards than these, those that are well are only counted. */
const shardsShownMax = 32;

export async function clusterStatus(client: QuorateClient, flags: ClientFlags): Promise<void> {
  const picture = await takePicture(client);
  if (flags.output === 'json') printJson(jsonOf(picture));
  else printStatus(picture);
  if (picture.problems.length > 0) process.exitCode = ExitCode.unhealthy;
}

export async function clusterVersion(client: QuorateClient, flags: ClientFlags): Promise<void> {
  const { topology, nodes } = await takePicture(client);
  const { clusterId, version } = topology;
  if (nodes.some(({ reply }) => reply === undefined)) process.exitCode = ExitCode.unhealthy;
  const programs = nodes.map(({ node, reply }) => ({
    node: node.nodeId,
    version: reply?.version ?? null,
    uptimeMs: reply?.uptimeMs ?? null,
  }));
  if (flags.output === 'json') {
    printJson({ clusterId, mapVersion: version, nodes: programs });
    return;
  }
  console.log(`cluster '${clusterId}', map version ${version}\n`);
  printTable(
    ['node', 'program', 'up for', 'address'],
    nodes.map(({ node, reply, error }) => [
      String(node.nodeId),
      reply?.version ?? pc.red(error),
      reply === undefined ? '' : formatAge(reply.uptimeMs),
      node.clientAddress,
    ]),
  );
  const versions = new Set(programs.map((each) => each.version).filter((each) => each !== null));
  if (versions.size > 1)
    console.log(pc.yellow(`\n${versions.size} different versions: finish the upgrade`));
}

function printStatus(picture: Picture): void {
  const { topology, nodes, problems } = picture;
  printNodes(picture);
  console.log('');
  printGroups(picture);
  printOperations(picture);
  printMigrations(picture);
  const answering = nodes.filter(({ reply }) => reply !== undefined).length;
  const whole = picture.groups.slice(1).filter(({ problem }) => problem === '').length;
  console.log('');
  for (const problem of problems) console.log(`${pc.red('!')} ${problem}`);
  console.log(
    `cluster '${topology.clusterId}', map version ${topology.version}: ` +
      `${answering} of ${nodes.length} nodes answer, ` +
      `${whole} of ${topology.shards.length} shards whole; ` +
      (problems.length === 0 ? pc.green('healthy') : pc.red('not healthy')),
  );
}

function printNodes({ nodes, groups }: Picture): void {
  printTable(
    ['node', 'state', 'clients', 'program', 'replicas', 'leads', 'memory', 'disk free'],
    nodes.map(({ node, reply }) => [
      String(node.nodeId),
      reply === undefined ? pc.red('no answer') : stateText(node.state),
      node.clientAddress,
      reply?.version ?? '',
      String(groups.filter((group) => group.nodes.includes(node.nodeId)).length),
      String(groups.filter(({ leader }) => leader?.node === node.nodeId).length),
      reply === undefined ? '' : formatBytes(reply.rssBytes),
      reply === undefined ? '' : formatBytes(reply.diskFreeBytes),
    ]),
  );
}

function printGroups(picture: Picture): void {
  const { groups, topology } = picture;
  const shown =
    groups.length <= shardsShownMax
      ? groups
      : groups.filter(({ id, problem }) => id === 0 || problem !== '').slice(0, shardsShownMax);
  printTable(
    ['group', 'slots', 'leader', 'nodes', 'there', 'behind', 'keys'],
    shown.map((group) => groupRow(group, slotsOf(topology, group.id))),
  );
  const hidden = groups.length - shown.length;
  if (hidden > 0) console.log(`and ${hidden} shards more (quorate shard list)`);
}

/** group, slots, leader, nodes, replicas that are there, entries behind, keys. */
export function groupRow(group: GroupPicture, slots: string): string[] {
  const { id, name, leader, nodes, present, replication, problem } = group;
  const there = `${present.length} of ${replication}`;
  return [
    name,
    id === 0 ? '' : slots === '' ? 'none' : slots,
    leader === undefined ? pc.red('none') : `node ${leader.node}`,
    nodes.join(' '),
    problem === '' ? there : pc.red(there),
    leader === undefined ? '' : formatCount(behind(group)),
    leader === undefined || id === 0 ? '' : formatCount(leader.status.keys),
  ];
}

/** Entries that the slowest replica has still to apply. */
function behind({ leader, replicas }: GroupPicture): number {
  const commit = leader?.status.commitIndex ?? 0;
  return Math.max(0, ...[...replicas.values()].map(({ appliedIndex }) => commit - appliedIndex));
}

function printOperations({ topology }: Picture): void {
  const running = topology.operations.filter(({ state }) => state === 'running');
  if (running.length === 0) return;
  console.log('');
  printTable(
    ['operation', 'what', 'for', 'progress'],
    running.map(({ operationId, what, sinceMs, progress }) => [
      String(operationId),
      what,
      formatAge(Date.now() - sinceMs),
      progress,
    ]),
  );
}

function printMigrations({ topology }: Picture): void {
  const open = topology.migrations.filter(isOpen);
  if (open.length === 0) return;
  const states = [...new Set(open.map(({ state }) => state))].map((state) => {
    const count = open.filter((each) => each.state === state).length;
    return `${count} ${state}`;
  });
  const moved = movedText(progressOf(open));
  console.log(`\nmigrations: ${states.join(', ')}; ${moved} slots moved (quorate migration list)`);
}

export function stateText(state: string): string {
  return state === 'up' ? pc.green(state) : pc.yellow(state);
}

function jsonOf({ topology, nodes, groups, problems }: Picture): object {
  const { clusterId, version, operations } = topology;
  return {
    clusterId,
    mapVersion: version,
    healthy: problems.length === 0,
    problems,
    nodes: nodes.map(({ node, reply, error }) => ({
      node: node.nodeId,
      state: node.state,
      clientAddress: node.clientAddress,
      version: reply?.version ?? null,
      error,
    })),
    groups: groups.map((group) => ({
      id: group.id,
      slots: slotsOf(topology, group.id),
      leader: group.leader?.node ?? null,
      nodes: group.nodes,
      present: group.present,
      replication: group.replication,
      behind: behind(group),
      keys: group.leader?.status.keys ?? null,
      problem: group.problem,
    })),
    operations: operations.filter(({ state }) => state === 'running'),
    migrations: topology.migrations.filter(isOpen),
  };
}
