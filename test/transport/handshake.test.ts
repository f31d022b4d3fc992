import { expect } from 'chai';
import { FrameKind } from '../../src/transport/frame.js';
import type { Hello, HelloReply } from '../../src/transport/handshake.js';
import { directoryOf, numbered, Stage, TestRegistry, until, type TestNode } from './stage.js';

describe('D16, D40, R24: the handshake between nodes', () => {
  let stage = new Stage();
  beforeEach(() => {
    stage = new Stage();
  });
  afterEach(() => stage.close());

  it('D40: welcomes the right node of the right cluster, and says who it is itself', async () => {
    const node = await stage.node(1, { peers: { 2: 1 } });
    const peer = await stage.rawPeer(node.port);
    peer.hello();
    const reply = await peer.reply();
    expect(reply).to.include({ accepted: true, code: '', nodeId: 1 });
    expect(Buffer.from(reply.directoryId)).to.deep.equal(directoryOf(1));
    expect(node.registry.known(2)).to.deep.equal(directoryOf(2));
    expect(peer.closed).to.equal(false);
  });

  const refusals: readonly {
    readonly rule: string;
    readonly of: string;
    readonly hello: Partial<Hello>;
    readonly code: string;
    readonly says: string;
  }[] = [
    {
      rule: 'D40',
      of: 'another cluster',
      hello: { clusterId: 'c2' },
      code: 'OTHER_CLUSTER',
      says: "this is cluster 'c1', not 'c2': check --cluster-id",
    },
    {
      rule: 'D40',
      of: 'somebody who takes it for another node',
      hello: { toNodeId: 3 },
      code: 'OTHER_NODE',
      says: 'this is node 1, not 3: check --initial-cluster',
    },
    {
      rule: 'D40',
      of: 'a node that is not of the cluster',
      hello: { nodeId: 9 },
      code: 'UNKNOWN_NODE',
      says: 'node 9 is not a member',
    },
    {
      rule: 'D40',
      of: 'node 0, which is nobody',
      hello: { nodeId: 0 },
      code: 'UNKNOWN_NODE',
      says: 'node 0 is not a member',
    },
    {
      rule: 'D40',
      of: 'a second process under its own id',
      hello: { nodeId: 1, directoryId: directoryOf(7) },
      code: 'OTHER_NODE',
      says: 'check --node-id',
    },
    {
      rule: 'D16',
      of: 'another version of the protocol',
      hello: { protocol: 1 },
      code: 'PROTOCOL',
      says: 'peer protocol 1 is not spoken here, 3 is',
    },
    {
      rule: 'D16',
      of: 'a purpose that it does not know',
      hello: { purpose: 'gossip' },
      code: 'PROTOCOL',
      says: "a connection for 'gossip'",
    },
    {
      rule: 'R24',
      of: 'a node that shows no directory',
      hello: { directoryId: Buffer.alloc(0) },
      code: 'OTHER_DIRECTORY',
      says: 'sent no directory id',
    },
    {
      rule: 'R24 wiped-node-rejoins-with-same-id',
      of: 'another directory than before',
      hello: { nodeId: 3, directoryId: directoryOf(33) },
      code: 'OTHER_DIRECTORY',
      says: 'its disk was wiped or replaced',
    },
  ];
  for (const { rule, of, hello, code, says } of refusals) {
    it(`${rule}: refuses ${of}, with ${code} and a sentence`, async () => {
      const registry = new TestRegistry();
      registry.remember(3, directoryOf(3));
      // Like the server, it finds itself among the nodes of its cluster.
      const node = await stage.node(1, { registry, peers: { 2: 1, 3: 1 } });
      const peer = await stage.rawPeer(node.port);
      peer.hello(hello);
      // Whoever was refused may not go on as if it had not been, nor begin anew.
      peer.send(FrameKind.messages, Buffer.from([1]));
      peer.hello();
      const reply = await peer.reply();
      expect(reply).to.include({ accepted: false, code });
      expect(reply.message).to.include(says);
      await until('the connection is closed', () => peer.closed);
      expect(peer.frames).to.have.length(1);
      expect(node.figure('malformed')).to.equal(0);
      expect(node.receiver.frames).to.deep.equal([]);
      expect([...registry.directories]).to.deep.equal([[3, directoryOf(3)]]);
    });
  }

  it('R24: refuses whom it cannot remember, and welcomes it when there is room again', async () => {
    const node = await stage.node(1, { peers: { 2: 1 } });
    node.registry.full = true;
    const first = await stage.rawPeer(node.port);
    first.hello();
    expect(await first.reply()).to.include({ accepted: false, code: 'NOT_REMEMBERED' });
    node.registry.full = false;
    const second = await stage.rawPeer(node.port);
    second.hello();
    expect(await second.reply()).to.include({ accepted: true });
  });

  it('R24: a wiped node hears nothing of its peers and says nothing to them', async () => {
    const knowing = new TestRegistry();
    knowing.remember(2, directoryOf(2));
    const one = await stage.node(1, { registry: knowing, peers: { 2: 1 } });
    const wiped = await stage.node(2, { directoryId: directoryOf(99), peers: { 1: one.port } });
    one.addresses.set(wiped.id, { host: '127.0.0.1', port: wiped.port });
    const errors = (node: TestNode): number =>
      node.lines.filter(({ level, text }) => level === 'error' && text.includes('OTHER_DIRECTORY'))
        .length;
    await until(
      'both know',
      () => errors(one) > 0 && errors(wiped) > 0,
      () => one.lines,
    );
    one.send(2, 1, numbered(1));
    wiped.send(1, 1, numbered(1));
    await until('both tried again', () => one.lines.length > 4);
    expect([one.isConnected(2), wiped.isConnected(1)]).to.deep.equal([false, false]);
    expect([one.receiver.frames, wiped.receiver.frames]).to.deep.equal([[], []]);
    expect(knowing.known(2)).to.deep.equal(directoryOf(2));
    expect([errors(one), errors(wiped)], 'each says it once').to.deep.equal([1, 1]);
  });

  const answers: readonly {
    readonly rule: string;
    readonly of: string;
    readonly reply: Partial<HelloReply>;
    readonly code: string;
  }[] = [
    {
      rule: 'D40',
      of: 'another node than the one it asked for',
      reply: { nodeId: 3 },
      code: 'OTHER_NODE',
    },
    {
      rule: 'R24',
      of: 'the node with another directory',
      reply: { directoryId: directoryOf(9) },
      code: 'OTHER_DIRECTORY',
    },
    {
      rule: 'D40',
      of: 'a refusal',
      reply: { accepted: false, code: 'OTHER_CLUSTER' },
      code: 'OTHER_CLUSTER',
    },
  ];
  for (const { rule, of, reply, code } of answers) {
    it(`${rule}: does not connect when the answer comes from ${of}`, async () => {
      const registry = new TestRegistry();
      registry.remember(2, directoryOf(2));
      const fake = await stage.fakePeer();
      fake.reply = reply;
      const node = await stage.node(1, { registry, peers: { 2: fake.port } });
      await until('it tried three times', () => fake.peers.length > 2);
      expect(node.receiver.connections).to.deep.equal([]);
      const errors = node.lines.filter(({ level }) => level === 'error');
      expect(errors.map(({ text }) => text.includes(code))).to.deep.equal([true]);
      // What a stranger said has not become what is known of node 3.
      expect([...registry.directories.keys()]).to.deep.equal([2]);
    });
  }

  it('waits for a silent stranger until its deadline, and no longer', async () => {
    const node = await stage.node(1, { limits: { handshakeMsMax: 100 } });
    const peer = await stage.rawPeer(node.port);
    const began = Date.now();
    await until('the connection is closed', () => peer.closed);
    expect(Date.now() - began).to.be.within(90, 3000);
  });

  it('gives up on a peer that accepts and says nothing, and tries again', async () => {
    const fake = await stage.fakePeer();
    fake.greets = false;
    const node = await stage.node(1, { peers: { 2: fake.port }, limits: { handshakeMsMax: 50 } });
    await until('it came back', () => fake.peers.length > 2);
    expect(node.receiver.connections).to.deep.equal([]);
  });

  it('begins with a hello: anything else closes the connection', async () => {
    const node = await stage.node(1, { peers: { 2: 1 } });
    const peer = await stage.rawPeer(node.port);
    peer.send(FrameKind.messages, Buffer.from([1]));
    await until('the connection is closed', () => peer.closed);
    expect(peer.frames).to.deep.equal([]);
    expect(node.figure('malformed')).to.equal(1);
  });
});
