/**
 * Nodes in network namespaces, each with one cable to a bridge. A packet filter of the bridge family
 * drops what goes from one node to another; clients sit on the bridge itself and reach every node.
 * Everything is made inside the run's own namespaces, so nothing has to be taken down.
 */
import { missing, run } from './shell.js';
import type { Link, Network, NodeAddresses, Weather } from './network.js';

const bridge = 'quorate0';
const table = 'bridge quorate';
const subnet = '10.77.0';
const gateway = 254;

const cable = (node: number): string => `quorate-v${node}`;
const namespace = (node: number): string => `quorate-n${node}`;

export class NamespaceNetwork implements Network {
  readonly kind = 'namespaces';
  readonly cannotCut: string | undefined;
  readonly cannotLose: string | undefined;
  readonly cannotDelay: string | undefined;
  private readonly nodes: readonly number[];

  private constructor(
    nodes: readonly number[],
    cannot: { readonly cut: string | undefined; readonly delay: string | undefined },
  ) {
    this.nodes = nodes;
    this.cannotCut = cannot.cut;
    this.cannotLose = cannot.cut;
    this.cannotDelay = cannot.delay;
  }

  /** Rejects when namespaces cannot be made: then loopback is left. */
  static async open(nodes: readonly number[]): Promise<NamespaceNetwork> {
    const absent = missing(['ip', 'iproute2']);
    if (absent !== undefined) throw new Error(absent);
    const bridgeUp = [
      `link add ${bridge} type bridge`,
      `addr add ${subnet}.${gateway}/24 dev ${bridge}`,
      `link set ${bridge} up`,
      'link set lo up',
    ];
    await run('ip', ['-batch', '-'], { input: bridgeUp.join('\n') });
    for (const node of nodes) await plugIn(node);
    return new NamespaceNetwork(nodes, { cut: await openFilter(), delay: await probeDelay(nodes) });
  }

  addressesOf(node: number): NodeAddresses {
    const [client, peer, http] = [7400, 7401, 7402].map((port) => `${subnet}.${node}:${port}`);
    if (client === undefined || peer === undefined || http === undefined)
      throw new RangeError('three ports');
    return { client, peer, http, advertisedClient: client, advertisedPeer: peer };
  }

  commandOn(node: number, command: readonly string[]): readonly string[] {
    return ['ip', 'netns', 'exec', namespace(node), ...command];
  }

  async cut(links: readonly Link[]): Promise<void> {
    await nft(replaceSet('cut', links));
  }

  /** Delay is of whole cables: of every node that a link begins at. */
  async worsen(links: readonly Link[], { lossPercent, delayMs }: Weather): Promise<void> {
    const rule =
      lossPercent > 0
        ? `add rule ${table} lossy numgen random mod 100 < ${lossPercent} counter name touched drop`
        : '';
    const lossy = lossPercent > 0 ? links : [];
    if (this.cannotLose === undefined)
      await nft(`flush chain ${table} lossy\n${rule}\n${replaceSet('bad', lossy)}`);
    const slow = new Set(delayMs > 0 ? links.map(({ from }) => from) : []);
    if (this.cannotDelay === undefined)
      for (const node of this.nodes) await setDelay(node, slow.has(node) ? delayMs : 0);
  }

  async touched(): Promise<number> {
    const listed = await run('nft', ['-j', 'list', 'counter', ...table.split(' '), 'touched']);
    const found = /"packets": ?(\d+)/.exec(listed);
    return Number(found?.[1] ?? 0);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

async function plugIn(node: number): Promise<void> {
  const inside = namespace(node);
  await run('ip', ['netns', 'add', inside]);
  const outer = [
    `link add ${cable(node)} type veth peer name eth0 netns ${inside}`,
    `link set ${cable(node)} master ${bridge} up`,
  ];
  await run('ip', ['-batch', '-'], { input: outer.join('\n') });
  const inner = [`addr add ${subnet}.${node}/24 dev eth0`, 'link set eth0 up', 'link set lo up'];
  await run('ip', ['-n', inside, '-batch', '-'], { input: inner.join('\n') });
}

/** Why packets cannot be filtered; undefined: the filter is there, and lets everything through. */
async function openFilter(): Promise<string | undefined> {
  const absent = missing(['nft', 'nftables']);
  if (absent !== undefined) return absent;
  try {
    await nft(`
      table ${table} {
        counter touched { }
        set cut { type ifname . ifname; }
        set bad { type ifname . ifname; }
        chain lossy { }
        chain forward {
          type filter hook forward priority 0; policy accept;
          iifname . oifname @cut counter name touched drop
          iifname . oifname @bad jump lossy
        }
      }`);
    return undefined;
  } catch (error) {
    return `nft cannot filter on a bridge here (${firstLine(error)})`;
  }
}

/** Why cables cannot be slowed; undefined: they can. */
async function probeDelay(nodes: readonly number[]): Promise<string | undefined> {
  const absent = missing(['tc', 'iproute2']);
  const [first] = nodes;
  if (absent !== undefined || first === undefined) return absent;
  try {
    await setDelay(first, 1);
    await setDelay(first, 0);
    return undefined;
  } catch (error) {
    return `the kernel has no netem (${firstLine(error)})`;
  }
}

async function setDelay(node: number, delayMs: number): Promise<void> {
  const change =
    delayMs > 0
      ? ['replace', 'dev', 'eth0', 'root', 'netem', 'delay', `${delayMs}ms`]
      : ['replace', 'dev', 'eth0', 'root', 'pfifo_fast'];
  await run('tc', ['-n', namespace(node), 'qdisc', ...change]);
}

function replaceSet(name: string, links: readonly Link[]): string {
  const elements = links.map(({ from, to }) => `"${cable(from)}" . "${cable(to)}"`);
  const add = elements.length > 0 ? `add element ${table} ${name} { ${elements.join(', ')} }` : '';
  return `flush set ${table} ${name}\n${add}\n`;
}

/** One transaction. */
async function nft(script: string): Promise<void> {
  await run('nft', ['-f', '-'], { input: script });
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split('\n')[0] ?? '';
}
