// streams.js URL: asks for /a to /e at once on one connection of HTTP/2, as ana and as
// bob by turns, and prints the answers in order.
const http2 = require('http2');

const session = http2.connect(process.argv[2], { rejectUnauthorized: false, servername: process.argv[3] });
session.on('error', e => { console.log('failed:', e.message); process.exit(1); });

function ask(path, user) {
  return new Promise(resolve => {
    const stream = session.request({ ':path': path, 'x-user': user });
    let text = '';
    stream.setEncoding('utf8');
    stream.on('data', part => text += part);
    stream.on('end', () => resolve(`${user}: ${text.trim()}`));
    stream.on('error', e => resolve(`${user}: ${e.message}`));
    stream.end();
  });
}

(async () => {
  const all = ['/a', '/b', '/c', '/d', '/e'].map((path, i) => ask(path, i % 2 ? 'bob' : 'ana'));
  for (const line of await Promise.all(all)) console.log(line);
  session.close();
})();
