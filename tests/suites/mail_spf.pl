# Judges "ip, sender, helo" (one line each, tabs between them) with Debian's Mail::SPF, asking the DNS server at 127.0.0.1:PORT.
use strict;
use warnings;
use Mail::SPF;
use Net::DNS::Resolver;

my $resolver = Net::DNS::Resolver->new(
    nameservers => ['127.0.0.1'], port => $ARGV[0], recurse => 1, retry => 1, udp_timeout => 1, tcp_timeout => 1,
    searchlist => [], defnames => 0, dnsrch => 0,
);
my $server = Mail::SPF::Server->new(
    dns_resolver => $resolver, hostname => 'mx.example.com', query_rr_types => Mail::SPF::Server->query_rr_type_txt,
    max_void_dns_lookups => 2, default_authority_explanation => '',
);
$| = 1;
while (my $line = <STDIN>) {
    chomp $line;
    my ($ip, $sender, $helo) = split /\t/, $line;
    my $code = eval {
        my $request = Mail::SPF::Request->new(
            versions => [1], scope => 'mfrom', identity => $sender, ip_address => $ip, helo_identity => $helo,
        );
        my $result = $server->process($request);
        my $why = $result->can('authority_explanation') ? $result->authority_explanation : '';
        $result->code . "\t" . ($why // '');
    };
    my $answer = defined $code ? $code : "raised\t$@";
    $answer =~ s/[\r\n]+/ /g;
    print "$answer\n";
}
