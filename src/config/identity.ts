/**
 * Who a data directory belongs to: cluster, node and a random id of the directory itself, written
 * once and synced before this node says a word to anybody (rule D40). It also remembers the
 * directory ids of its peers, so that a node whose disk was wiped cannot come back under its old
 * identity and vote a second time (R24).
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';

const fileName = 'identity.json';
const directoryIdBytes = 16;

const hexId = z.string().regex(new RegExp(`^[0-9a-f]{${2 * directoryIdBytes}}$`));
const schema = z.strictObject({
  version: z.literal(1),
  clusterId: z.string(),
  nodeId: z.number().int(),
  directoryId: hexId,
  /** Directory ids of peers by node id, as first seen. */
  peers: z.record(z.string(), hexId),
});

type Fields = z.output<typeof schema>;

/** The data directory belongs to another node or cluster, cannot be made, or its identity is damaged. */
export class IdentityMismatch extends Error {
  override readonly name = 'IdentityMismatch';
}

export class Identity {
  /** True when the directory was new and this run has created its identity. */
  readonly isNew: boolean;
  private readonly path: string;
  private fields: Fields;

  private constructor(path: string, fields: Fields, isNew: boolean) {
    this.path = path;
    this.fields = fields;
    this.isNew = isNew;
  }

  /**
   * Opens or creates the identity of a data directory (created if missing). Throws IdentityMismatch
   * when it belongs to somebody else; then nothing has been changed.
   */
  static open(options: {
    readonly directory: string;
    readonly clusterId: string;
    readonly nodeId: number;
  }): Identity {
    const { directory, clusterId, nodeId } = options;
    makeDirectory(directory);
    const path = join(directory, fileName);
    if (!existsSync(path)) {
      const directoryId = randomBytes(directoryIdBytes).toString('hex');
      const fields: Fields = { version: 1, clusterId, nodeId, directoryId, peers: {} };
      writeDurably(path, fields);
      return new Identity(path, fields, true);
    }
    const fields = parse(path);
    if (fields.nodeId === 0 && fields.clusterId !== clusterId) {
      throw new IdentityMismatch(
        `data directory ${directory} was to join cluster '${fields.clusterId}' and has no answer yet, ` +
          `this is cluster '${clusterId}': correct --cluster-id, or remove ${path}`,
      );
    }
    if (fields.clusterId !== clusterId || fields.nodeId !== nodeId) {
      throw new IdentityMismatch(
        `data directory ${directory} belongs to node ${fields.nodeId} of cluster '${fields.clusterId}', ` +
          `this is node ${nodeId} of cluster '${clusterId}': ` +
          'give each node a directory of its own (--data-directory), or correct --node-id and --cluster-id',
      );
    }
    return new Identity(path, fields, false);
  }

  /**
   * Opens or creates the identity of a directory whose node gets its id from the cluster: 0 until
   * then. The directory id is durable before anybody is asked, so that a lost answer can be asked for
   * again (rule D40). Throws IdentityMismatch for a directory of another cluster.
   */
  static openToJoin(options: { readonly directory: string; readonly clusterId: string }): Identity {
    const path = join(options.directory, fileName);
    const nodeId = existsSync(path) ? parse(path).nodeId : 0;
    return Identity.open({ ...options, nodeId });
  }

  /** Whose directory this is; nothing is created. Throws IdentityMismatch when it is nobody's. */
  static read(directory: string): { readonly clusterId: string; readonly nodeId: number } {
    const path = join(directory, fileName);
    if (!existsSync(path)) {
      throw new IdentityMismatch(
        `${directory} is not the data directory of a node: no ${fileName}`,
      );
    }
    const { clusterId, nodeId } = parse(path);
    return { clusterId, nodeId };
  }

  /** 0: the cluster has not been asked yet. */
  get nodeId(): number {
    return this.fields.nodeId;
  }

  /** The cluster has given this directory its node id. Durable on return. */
  settle(nodeId: number): void {
    const fields = { ...this.fields, nodeId };
    writeDurably(this.path, fields);
    this.fields = fields;
  }

  /** The cluster has refused to take this directory, which this run has begun: it is nobody's again. */
  forget(): void {
    if (this.isNew) rmSync(this.path);
  }

  /** 16 bytes. */
  get directoryId(): Uint8Array {
    return Buffer.from(this.fields.directoryId, 'hex');
  }

  /** The directory id a peer had when it was first met; undefined for one never met. */
  known(node: number): Uint8Array | undefined {
    const hex = this.fields.peers[String(node)];
    return hex === undefined ? undefined : Buffer.from(hex, 'hex');
  }

  /** Durable on return. */
  remember(node: number, directoryId: Uint8Array): void {
    const peers = {
      ...this.fields.peers,
      [String(node)]: Buffer.from(directoryId).toString('hex'),
    };
    const fields = { ...this.fields, peers };
    // In this order: what could not be written must be asked for, and written, again.
    writeDurably(this.path, fields);
    this.fields = fields;
  }
}

function parse(path: string): Fields {
  try {
    return schema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new IdentityMismatch(
      `${path} is damaged: ${reason}\nThis node cannot prove who it is; remove the directory and add it ` +
        'to the cluster as a new node',
      { cause: error },
    );
  }
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true });
  } catch (error) {
    throw new IdentityMismatch(
      `cannot make the data directory ${directory} (${error instanceof Error ? error.message : ''}): ` +
        'name another one with --data-directory, or let this user write there',
      { cause: error },
    );
  }
}

/** Either the old content or the new one is there after a crash: write beside, sync, rename, sync. */
function writeDurably(path: string, fields: Fields): void {
  const beside = `${path}.new`;
  const file = openSync(beside, 'w');
  writeSync(file, `${JSON.stringify(fields, undefined, 2)}\n`);
  fsyncSync(file);
  closeSync(file);
  renameSync(beside, path);
  const directory = openSync(dirname(path), 'r');
  fsyncSync(directory);
  closeSync(directory);
}
