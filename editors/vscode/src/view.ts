// The tree of sessions: what each is, its ports, and what goes on in it.

import * as vscode from 'vscode';
import { Activity, line } from './activity';
import { Port, Session, Sessions } from './sessions';

type Node = { session: Session } | { session: Session; group: string } | { session: Session; port: Port } | { activity: Activity } | { text: string };

// groups are of what happens in a session.
const groups: Record<string, { kind: string; flow?: string; icon: string }> = {
	Requests: { kind: 'request', icon: 'arrow-swap' },
	Outgoing: { kind: 'connection', flow: 'outgoing', icon: 'arrow-right' },
	Lookups: { kind: 'lookup', icon: 'search' },
	Files: { kind: 'file', icon: 'files' },
};

export class SessionView implements vscode.TreeDataProvider<Node> {
	private readonly heard = new vscode.EventEmitter<undefined>();
	readonly onDidChangeTreeData = this.heard.event;
	private later: NodeJS.Timeout | undefined;

	constructor(private readonly sessions: Sessions) {}

	// changed shows what is new, a few times a second at most.
	changed(): void {
		this.later ??= setTimeout(() => {
			this.later = undefined;
			this.heard.fire(undefined);
		}, 250);
	}

	getChildren(n?: Node): Node[] {
		if (!n) {
			return this.sessions.running.map(session => ({ session }));
		}
		if ('group' in n) {
			return happened(n.session, n.group).slice(0, 50).map(activity => ({ activity }));
		}
		if ('session' in n && !('port' in n)) {
			const st = n.session.status;
			return [
				{ text: `since ${new Date(st.since).toLocaleTimeString()} · link ${st.lost ? 'lost' : 'ok'} · incoming ${st.mode}` },
				...(st.ports ?? []).map(port => ({ session: n.session, port })),
				...Object.keys(groups).map(group => ({ session: n.session, group })),
			];
		}
		return [];
	}

	getTreeItem(n: Node): vscode.TreeItem {
		if ('text' in n) {
			return new vscode.TreeItem(n.text);
		}
		if ('activity' in n) {
			const t = new vscode.TreeItem(line(n.activity));
			t.description = new Date(n.activity.at).toLocaleTimeString();
			t.tooltip = JSON.stringify(n.activity, null, 1);
			return t;
		}
		if ('port' in n) {
			const t = new vscode.TreeItem(`port ${n.port.port}`);
			t.description = [n.port.mode ?? 'local', n.port.filter, n.port.published && `open at ${n.port.published}`].filter(p => p).join(' · ');
			t.iconPath = new vscode.ThemeIcon('plug');
			t.contextValue = n.port.published ? 'port' : undefined;
			t.command = n.port.published ? { command: 'mirrord.openPort', title: 'Open in Browser', arguments: [n] } : undefined;
			return t;
		}
		if ('group' in n) {
			const count = happened(n.session, n.group).length;
			const t = new vscode.TreeItem(n.group, count > 0 ? vscode.TreeItemCollapsibleState.Collapsed : vscode.TreeItemCollapsibleState.None);
			t.id = `${n.session.id} ${n.group}`;
			t.description = String(count);
			t.iconPath = new vscode.ThemeIcon(groups[n.group].icon);
			return t;
		}
		const st = n.session.status;
		const t = new vscode.TreeItem(st.target ?? 'no target', vscode.TreeItemCollapsibleState.Expanded);
		t.id = st.id;
		t.description = [st.namespace, st.id].filter(p => p).join(' · ');
		t.iconPath = new vscode.ThemeIcon(st.lost ? 'debug-disconnect' : 'vm-running');
		t.contextValue = 'session';
		t.accessibilityInformation = { label: `session of ${st.target ?? 'no target'}, link ${st.lost ? 'lost' : 'ok'}` };
		return t;
	}
}

function happened(s: Session, group: string): Activity[] {
	const g = groups[group];
	return s.recent.filter(a => a.kind === g.kind && (!g.flow || a.flow === g.flow));
}
