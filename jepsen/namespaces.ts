/**
 * Nodes in network namespaces, each with one cable to a bridge. A packet filter of the bridge family
 * drops what goes from one node to another; clients sit on the bridge itself and reach every node.
 * Everything is made inside the run's own namespaces, so nothing has to be taken down.
 */
import { missing, run } from './shell.js';
import type { Link, Network, NodeAddresses } from './network.js';

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
  readonly cannotSlow: string | undefined;
  private readonly nodes: readonly number[];
  private readonly slow = new Set<number>();
  /** Packets that had to wait on cables that are slow no more. */
  private held = 0;

  private constructor(
    nodes: readonly number[],
    cannot: { readonly cut: string | undefined; readonly slow: string | undefined },
  ) {
    this.nodes = nodes;
    this.cannotCut = cannot.cut;
    this.cannotLose = cannot.cut;
    this.cannotSlow = cannot.slow;
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
    return new NamespaceNetwork(nodes, {
      cut: await openFilter(),
      slow: await probeSlowness(nodes),
    });
  }

  addressesOf(node: number): NodeAddresses {
    const [client, peer, http] = [7400, 7401, 7402].map((port) => `${subnet}.${node}:${port}`);
    if (client === undefined || peer === undefined || http === undefined)
      throw new RangeError('three ports');
    return { client, peer, http, advertisedClient: client, advertisedPeer: peer };
  }

  commandOn(node: number, command: readonly string[]): readonly string[] {
    // Not `ip netns exec`: that gives each node mounts of its own, which outlive an umount of ours.
    return ['nsenter', `--net=/run/netns/${namespace(node)}`, ...command];
  }

  runs(): void {
    // Packets tell by themselves where they come from.
  }

  async cut(links: readonly Link[]): Promise<void> {
    await nft(replaceSet('cut', links));
  }

  async lose(links: readonly Link[], percent: number): Promise<void> {
    const drop = `numgen random mod 100 < ${percent} counter name touched drop`;
    const rule = links.length > 0 ? `add rule ${table} lossy ${drop}` : '';
    await nft(`flush chain ${table} lossy\n${rule}\n${replaceSet('bad', links)}`);
  }

  async slowDown(nodes: readonly number[], kilobitsPerSecond: number): Promise<void> {
    for (const node of this.nodes) {
      if (this.slow.delete(node)) {
        this.held += await heldBack(node);
        await tc(node, ['del', 'dev', 'eth0', 'root']);
      }
      if (!nodes.includes(node)) continue;
      await tc(node, ['add', ...slowness(kilobitsPerSecond)]);
      this.slow.add(node);
    }
  }

  async touched(): Promise<number> {
    const held = await Promise.all([...this.slow].map(heldBack));
    const waiting = held.reduce((sum, packets) => sum + packets, this.held);
    if (this.cannotCut !== undefined) return waiting;
    const listed = await run('nft', ['-j', 'list', 'counter', ...table.split(' '), 'touched']);
    return waiting + Number(/"packets": ?(\d+)/.exec(listed)?.[1] ?? 0);
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
async function probeSlowness(nodes: readonly number[]): Promise<string | undefined> {
  const absent = missing(['tc', 'iproute2']);
  const [first] = nodes;
  if (absent !== undefined || first === undefined) return absent;
  try {
    await tc(first, ['add', ...slowness(1000)]);
    await tc(first, ['del', 'dev', 'eth0', 'root']);
    return undefined;
  } catch (error) {
    return `the kernel has no token bucket filter (${firstLine(error)})`;
  }
}

/** What is above the rate waits up to 400 ms, and is dropped then. */
function slowness(kilobitsPerSecond: number): readonly string[] {
  const rate = `${kilobitsPerSecond}kbit`;
  return ['dev', 'eth0', 'root', 'tbf', 'rate', rate, 'burst', '16kb', 'latency', '400ms'];
}

/** Packets that had to wait, so far. */
async function heldBack(node: number): Promise<number> {
  const shown = await tc(node, ['show', 'dev', 'eth0'], ['-s']);
  return Number(/overlimits (\d+)/.exec(shown)?.[1] ?? 0);
}

function tc(node: number, args: readonly string[], flags: readonly string[] = []): Promise<string> {
  return run('tc', ['-n', namespace(node), ...flags, 'qdisc', ...args]);
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
