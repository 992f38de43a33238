// server.js PORT: an HTTP server on node.
const http = require('http');
const server = http.createServer((req, res) => {
  console.log('got', req.url, 'from', req.socket.remoteAddress.replace('::ffff:', ''));
  res.end(`local node ${req.url} peer=${req.socket.remoteAddress.replace('::ffff:', '')}\n`);
});
server.listen(Number(process.argv[2]), () => console.log('listening'));
