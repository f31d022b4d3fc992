/**
 * `quorate cluster check`: are all replicas of every group equal? Each group logs a command, which all
 * its replicas meet at the same index; there each takes the hash of its state. So they can be compared
 * while writes go on.
 */
import { createHash } from 'node:crypto';
import pc from 'picocolors';
import type { QuorateClient } from '../client/index.js';
import { KvError } from '../errors.js';
import {
  takePicture,
  type GroupPicture,
  type NodePicture,
  type Picture,
} from './cluster-picture.js';
import type { ClientFlags } from './options.js';
import { ExitCode, formatCount, printJson } from './output.js';

/** Groups that are hashed at one time: each costs every replica a pass over its data. */
const atOnceMax = 4;
const pollMs = 50;
/** A replica that comes past the index by a snapshot has no hash of it: then there is another one. */
const roundsMax = 3;

interface ReplicaVerdict {
  readonly node: number;
  /** Empty when there is none: `error` says why. */
  readonly hash: string;
  readonly keys: number;
  readonly error: string;
}

interface GroupVerdict {
  readonly id: number;
  readonly name: string;
  /** 0: nobody took the command. */
  readonly index: number;
  readonly error: string;
  readonly replicas: readonly ReplicaVerdict[];
}

export interface CheckFlags extends ClientFlags {
  /** Seconds. */
  readonly within: string;
}

export async function clusterCheck(
  client: QuorateClient,
  flags: CheckFlags,
  withinMs: number,
): Promise<void> {
  const picture = await takePicture(client);
  refuseMixed(picture);
  const check = new Check(client, picture, Date.now() + withinMs);
  const verdicts = await check.all();
  const problems = [...verdicts.flatMap(problemsOf), ...unfinished(picture)];
  if (problems.length > 0) process.exitCode = ExitCode.unhealthy;
  if (flags.output === 'json') {
    const { clusterId, version } = picture.topology;
    const ok = problems.length === 0;
    const hash = combined(verdicts);
    printJson({ ok, clusterId, mapVersion: version, hash, problems, groups: verdicts });
    return;
  }
  for (const problem of problems) console.log(`${pc.red('!')} ${problem}`);
  console.log(lastLine(picture, verdicts, problems.length === 0));
}

/** Until its operation has ended, the replica that is replaced counts as one of its node. */
function unfinished({ topology }: Picture): readonly string[] {
  return topology.operations
    .filter(({ kind, state }) => kind === 'replaceReplica' && state === 'running')
    .map(({ operationId, what }) => `${what}: is under way still (operation ${operationId})`);
}

/** A node of an older version would stop at a command that it does not know (rule D16). */
function refuseMixed({ nodes }: Picture): void {
  const versions = nodes.flatMap(({ node, reply }) =>
    reply === undefined ? [] : [`node ${node.nodeId} ${reply.version}`],
  );
  if (new Set(versions.map((each) => each.split(' ')[2])).size <= 1) return;
  throw new Error(
    `the nodes run different versions (${versions.join(', ')}): finish the upgrade, then check`,
  );
}

class Check {
  private readonly client: QuorateClient;
  private readonly picture: Picture;
  private readonly deadline: number;

  constructor(client: QuorateClient, picture: Picture, deadline: number) {
    this.client = client;
    this.picture = picture;
    this.deadline = deadline;
  }

  async all(): Promise<readonly GroupVerdict[]> {
    const waiting = [...this.picture.groups];
    const verdicts: GroupVerdict[] = [];
    const work = async (): Promise<void> => {
      for (let group = waiting.shift(); group !== undefined; group = waiting.shift())
        verdicts.push(await this.group(group));
    };
    await Promise.all(Array.from({ length: atOnceMax }, work));
    return verdicts.sort((a, b) => a.id - b.id);
  }

  private async group(group: GroupPicture): Promise<GroupVerdict> {
    const { id, name } = group;
    let verdict: GroupVerdict = { id, name, index: 0, error: '', replicas: [] };
    for (let round = 0; round < roundsMax; round++) {
      try {
        const { index } = await this.client.takeHash({ groupId: id });
        const members = group.leader?.status.voters ?? group.nodes;
        const replicas = await Promise.all(members.map((node) => this.replica(id, index, node)));
        verdict = { id, name, index, error: '', replicas };
      } catch (error) {
        const why = group.leader === undefined ? 'it has no leader: ' : '';
        return { ...verdict, error: `${why}${textOf(error)}` };
      }
      const isWorthAnother = verdict.replicas.some(
        ({ node, error }) => error !== '' && this.nodeOf(node)?.reply !== undefined,
      );
      if (!isWorthAnother || Date.now() > this.deadline) break;
    }
    return verdict;
  }

  private nodeOf(id: number): NodePicture | undefined {
    return this.picture.nodes.find(({ node }) => node.nodeId === id);
  }

  private async replica(groupId: number, atIndex: number, node: number): Promise<ReplicaVerdict> {
    const none = { node, hash: '', keys: 0 };
    const found = this.nodeOf(node);
    if (found?.reply === undefined)
      return { ...none, error: found?.error ?? 'is not in the cluster any more' };
    try {
      for (;;) {
        const address = found.node.clientAddress;
        const reply = await this.client.replicaHash(address, { groupId, atIndex });
        if (!reply.pending) return { node, hash: reply.hash, keys: reply.keys, error: '' };
        if (Date.now() > this.deadline)
          return { ...none, error: 'has not come to it in time (--within, or it lags behind)' };
        await new Promise((resolve) => setTimeout(resolve, pollMs));
      }
    } catch (error) {
      return { ...none, error: textOf(error) };
    }
  }
}

function problemsOf({ name, index, error, replicas }: GroupVerdict): readonly string[] {
  if (error !== '') return [`${name} could not be checked: ${error}`];
  const missing = replicas
    .filter((replica) => replica.error !== '')
    .map((replica) => `${name} on node ${replica.node} was not compared: ${replica.error}`);
  const hashed = replicas.filter(({ hash }) => hash !== '');
  if (new Set(hashed.map(({ hash }) => hash)).size <= 1) return missing;
  const each = hashed.map(
    ({ node, hash, keys }) => `node ${node} ${short(hash)} (${formatCount(keys)} keys)`,
  );
  return [`${name} DIFFERS at index ${index}: ${each.join(', ')}`, ...missing];
}

/** What a person pastes. */
function lastLine(
  { topology }: Picture,
  verdicts: readonly GroupVerdict[],
  whole: boolean,
): string {
  const shards = verdicts.filter(({ id }) => id > 0);
  const replicas = shards.flatMap((verdict) => verdict.replicas);
  const compared = replicas.filter(({ hash }) => hash !== '').length;
  const keys = shards.reduce((sum, shard) => sum + (shard.replicas[0]?.keys ?? 0), 0);
  const differing = verdicts
    .filter(isDiffering)
    .map(({ name, index }) => `${name} at index ${index}`);
  const at = `at map version ${topology.version}`;
  if (differing.length > 0)
    return pc.red(
      `DIFFERENT: ${differing.join(', ')}, of ${counted(shards.length, 'shard')} ${at}`,
    );
  const counts = `${counted(shards.length, 'shard')}, ${compared} of ${replicas.length} replicas`;
  if (!whole) return pc.red(`incomplete: ${counts} compared and equal ${at}`);
  return (
    `${pc.green('ok')}: ${counted(shards.length, 'shard')}, ${counted(replicas.length, 'replica')}, ` +
    `${counted(keys, 'key')}, hash ${short(combined(verdicts))} ${at}`
  );
}

function isDiffering({ replicas }: GroupVerdict): boolean {
  return new Set(replicas.map(({ hash }) => hash).filter((hash) => hash !== '')).size > 1;
}

/** One hash for all groups. */
function combined(verdicts: readonly GroupVerdict[]): string {
  const hash = createHash('sha256');
  for (const { id, replicas } of verdicts) hash.update(`${id} ${replicas[0]?.hash ?? ''}\n`);
  return hash.digest('hex');
}

/** '1 key', '1,234 keys'. */
function counted(count: number, what: string): string {
  return `${formatCount(count)} ${what}${count === 1 ? '' : 's'}`;
}

function short(hash: string): string {
  return hash.slice(0, 16);
}

function textOf(error: unknown): string {
  return error instanceof KvError ? `${error.message} [${error.code}]` : String(error);
}
