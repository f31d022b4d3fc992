import { expect } from 'chai';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { LoopbackNetwork } from '../../jepsen/loopback.js';

/** Everything that node 2 has been sent. */
async function listen(address: string, received: string[]): Promise<() => void> {
  const [host = '', port = ''] = address.split(':');
  const server = createServer((socket) => {
    socket.on('data', (piece) => received.push(piece.toString()));
    socket.on('error', () => undefined);
  });
  server.listen(Number(port), host);
  await once(server, 'listening');
  return () => server.close();
}

async function dial(address: string): Promise<Socket> {
  const [host = '', port = ''] = address.split(':');
  const socket = connect(Number(port), host);
  await once(socket, 'connect');
  return socket;
}

async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await done())) {
    if (performance.now() > deadline) throw new Error(`not within 10 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('nodes on loopback', () => {
  it('are cut off from each other, one way at a time, while clients reach all of them', async function () {
    const network = await LoopbackNetwork.open([1, 2]);
    // Who connects is found out from /proc.
    if (network.cannotCut !== undefined) this.skip();
    const received: string[] = [];
    const { peer, advertisedPeer } = network.addressesOf(2);
    const close = await listen(peer, received);
    try {
      // This process plays a client at first, then node 1.
      await network.cut([{ from: 1, to: 2 }]);
      const client = await dial(advertisedPeer);
      client.write('client');
      await until('a client is heard', () => received.join('') === 'client');
      network.runs(1, process.pid);
      const node = await dial(advertisedPeer);
      node.write(' node');
      await until('it is held', async () => (await network.touched()) > 0);
      expect(received.join('')).to.equal('client');
      await network.cut([]);
      await until('it comes when the link is healed', () => received.join('') === 'client node');
      client.destroy();
      node.destroy();
    } finally {
      close();
      await network.close();
    }
  });
});
