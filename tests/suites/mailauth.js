// Asks mailauth in its strict mode. node mailauth.js NODE_MODULES, then JSON lines:
// in: {"raw": base64, "ip": "192.0.2.1", "helo": "mx.a.example", "sender": "x@a.example", "dns": "127.0.0.1:5353"}
// or what SPF and DKIM passed for: {"from": "a.example", "spf": ["b.example"], "dkim": [], "dns": "127.0.0.1:5353"}
// out: {"spf": "pass", "dkim": ["pass"], "dmarc": "pass", "arc": "none"}, {"dmarc": "fail", "policy": "reject"}, or {"error": "..."}
'use strict';

require('node:worker_threads').markAsUncloneable ??= () => {}; // its HTTP client asks for Node.js 22, and is not used

const path = require('node:path');
const readline = require('node:readline');
const { Resolver } = require('node:dns').promises;
const { authenticate } = require(path.join(process.argv[2], 'mailauth'));
const { evaluateDmarc } = require(path.join(process.argv[2], 'mailauth', 'lib', 'dmarc'));

async function judged(request) {
    const resolver = new Resolver({ timeout: 500, tries: 2 });
    resolver.setServers([request.dns]);
    const resolve = (name, type) => resolver.resolve(name, type);
    if (request.from) {
        const { response } = await evaluateDmarc({
            headerFrom: [request.from],
            spfDomains: request.spf,
            dkimDomains: request.dkim,
            resolver: resolve,
            strict: true
        });
        return { dmarc: response ? response.status.result : 'none', policy: (response && response.policy) || '' };
    }
    const found = await authenticate(Buffer.from(request.raw, 'base64'), {
        ip: request.ip,
        helo: request.helo,
        sender: request.sender,
        mta: 'mx.example.com',
        strict: true,
        disableBimi: true,
        resolver: resolve
    });
    return {
        spf: found.spf ? found.spf.status.result : 'none',
        dkim: found.dkim.results.map(one => one.status.result),
        dmarc: found.dmarc ? found.dmarc.status.result : 'none',
        arc: found.arc ? found.arc.status.result : 'none'
    };
}

async function main() {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        let said;
        try {
            said = await judged(JSON.parse(line));
        } catch (error) {
            said = { error: String(error) };
        }
        console.log(JSON.stringify(said));
    }
}

main();
