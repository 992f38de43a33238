// A small server for the tests: it says who it is, and what its environment says.
const http = require('node:http');

http.createServer((request, response) => {
	const answer = `local ${request.url} colour=${process.env.COLOUR}`;
	response.end(answer + '\n'); // a breakpoint is set here
}).listen(8080, () => console.log('listening on 8080'));
