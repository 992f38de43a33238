// A server with a socket by which browsers learn of a reload: it ends.
const http = require('http');
const version = require('./version.js');
http.createServer((req, res) => {
  if (req.url === '/live') {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    res.write(`data: ${version}\n\n`);
    return;
  }
  res.end(`version ${version}`);
}).listen(Number(process.env.PORT), () => console.log('serves', version));
