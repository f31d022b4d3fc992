/** What is between the nodes: where they listen, and how it can be cut and made bad. */

export interface NodeAddresses {
  /** host:port where the process itself listens. */
  readonly client: string;
  readonly peer: string;
  readonly http: string;
  /** host:port where the others find it. */
  readonly advertisedClient: string;
  readonly advertisedPeer: string;
}

/** From one node to another, this direction alone. */
export interface Link {
  readonly from: number;
  readonly to: number;
}

export interface Network {
  readonly kind: 'namespaces' | 'loopback';
  /** Why packets cannot be cut or lost, or links slowed here; undefined: they can. */
  readonly cannotCut: string | undefined;
  readonly cannotLose: string | undefined;
  readonly cannotSlow: string | undefined;
  addressesOf(node: number): NodeAddresses;
  /** The command line that runs `command` on a node's side of the network. */
  commandOn(node: number, command: readonly string[]): readonly string[];
  /** The process of a node has begun. */
  runs(node: number, pid: number): void;
  /** Exactly these links are cut from now on. */
  cut(links: readonly Link[]): Promise<void>;
  /** Exactly these links lose so many percent of their packets from now on. */
  lose(links: readonly Link[], percent: number): Promise<void>;
  /** Exactly what these nodes send is slow from now on: what is above the rate waits, or is dropped. */
  slowDown(nodes: readonly number[], kilobitsPerSecond: number): Promise<void>;
  /** How many packets (or pieces of streams) were dropped or held so far. */
  touched(): Promise<number>;
  close(): Promise<void>;
}

export function allLinks(nodes: readonly number[]): readonly Link[] {
  return nodes.flatMap((from) =>
    nodes.filter((to) => to !== from).map((to): Link => ({ from, to })),
  );
}
